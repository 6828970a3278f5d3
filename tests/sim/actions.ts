/** What clients and the administrator do in a run. Each action decides by a seed of its own, so any can be left out. */
import type { AdminCommand, AdminResult, PoolStatus } from "../../actors/control/admin_command.ts";
import { NBD_ENOSPC } from "../../actors/nbd/wire/constants.ts";
import { hostSpaceAskMs } from "../../actors/limits.ts";
import { sectorSizeBytes } from "../../storage/base/ids.ts";
import { Cut, WritableContent } from "../crash/content.ts";
import { Random } from "../support/world.ts";
import type { Asked, SimClient } from "./client.ts";
import { randomCommand, randomSize } from "./commands.ts";
import type { Life } from "./life.ts";
import type { Followed, Target } from "./oracle.ts";
import { isExpected, payloadOf, randomRange } from "./requests.ts";
import { type ActionKind, actionKinds } from "./swarm.ts";
import { mailboxOf, mailboxSums } from "../../actors/mailboxes.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

/** A client and what it is attached to. */
interface Connected {
  readonly client: SimClient;
  readonly target: Target;
  readonly followed: Map<Asked, Followed>;
}

const noBytes = new Uint8Array(0);
/** Pauses of background tasks in which a command ends that changes the few blocks of a simulated pool. */
const pausesMax = 1000;

/** See the head of this file. */
export class Actions {
  answers = 0;
  readonly counts = new Map<string, number>();
  readonly done: { readonly ordinal: number; readonly text: string }[] = [];
  readonly #world: World;
  readonly #seed: number;
  readonly #dropped: ReadonlySet<number>;
  #connected: Connected[] = [];

  constructor(world: World, seed: number, dropped: ReadonlySet<number>) {
    this.#world = world;
    this.#seed = seed;
    this.#dropped = dropped;
  }

  /** The actions of one life, until it crashes. */
  perform(life: Life, number: number): void {
    const { actionsPerLife, weights } = this.#world.swarm;
    this.#connected = [];
    const total = actionKinds.reduce((sum, kind) => sum + weights[kind], 0);
    for (let index = 0; index < actionsPerLife && !life.isOver; index += 1) {
      const ordinal = number * actionsPerLife + index;
      if (this.#dropped.has(ordinal)) continue;
      this.#world.reschedule(ordinal);
      const random = new Random(Math.imul(this.#seed, 0xc2b2ae35) ^ Math.imul(ordinal + 1, 0x27d4eb2f));
      let dice = random.below(total);
      const kind = actionKinds.find((each) => (dice -= weights[each]) < 0)!;
      const text = this.#do(kind, life, random, ordinal);
      if (text !== undefined) this.done.push({ ordinal, text });
      life.step(random.below(8));
    }
  }

  /** Nothing may be on its way any more, when writes that wait for space have had their time. */
  checkIdle(life: Life): void {
    this.#checkPassing(life);
    this.#endWaiting(life);
    this.#endPauses(life);
    this.#checkHostRoom(life);
    if (life.isOver) return;
    this.#world.checkOwed(life, false);
    const { oracle } = this.#world;
    for (const { client } of this.#connected) {
      if (client.unanswered > 0) {
        throw new Violation(
          `${client.unanswered} requests are never answered: ${life.kernel.tasksInFlight()}`,
        );
      }
    }
    if (oracle.command !== undefined) {
      throw new Violation(`${oracle.command.verb} does not end: ${life.kernel.tasksInFlight().join("; ")}`);
    }
    const tasks = life.kernel.tasksInFlight();
    if (tasks.length > 0) throw new Violation(`tasks are left: ${tasks.join("; ")}`);
    oracle.endAbandoned();
    const bounds = mailboxSums({ ...life.admitted, knobs: life.kernel.knobs });
    for (const [name, count] of life.kernel.mailboxHighWater()) {
      const bound = mailboxOf(name, bounds) ?? Infinity;
      if (count > bound) throw new Violation(`${count} messages waited for ${name}, which may have ${bound}`);
    }
  }

  /**
   * Lets time pass for writes that wait for space. Each ends: when there is some, within a second, or at the timeout, which
   * begins anew when another one was served.
   */
  #endWaiting(life: Life): void {
    const { noSpace } = this.#world.swarm;
    if (noSpace.kind === "error") return;
    const unanswered = () => this.#connected.reduce((sum, { client }) => sum + client.unanswered, 0);
    for (let left = unanswered(), passedMs = 0; left > 0 && !life.isOver; passedMs += 1000) {
      if (passedMs > noSpace.timeoutMs) return;
      life.jump(1000);
      life.drain();
      this.#checkWaiting(life);
      if (unanswered() < left) passedMs = 0;
      left = unanswered();
    }
  }

  /** Nothing moves, so only what may wait for space is without an answer: what waits holds no lock, and all else passes it. */
  #checkPassing(life: Life): void {
    if (life.isOver || this.#world.oracle.command !== undefined) return;
    for (const { client, followed } of this.#connected) {
      if (client.isLost) continue;
      for (const { kind } of followed.keys()) {
        if (kind === "write" || kind === "writeZeroes") continue;
        throw new Violation(`a ${kind} waits behind writes without space: ${life.kernel.tasksInFlight()}`);
      }
    }
  }

  /** Where the host has room the pool knows it two questions later, and no write waits for some. */
  #checkHostRoom(life: Life): void {
    const { host } = life;
    if (host.isFull || host.refused.data === 0) return;
    for (let asked = 0; asked < 3; asked += 1) {
      life.jump(hostSpaceAskMs);
      life.drain();
    }
    const status = this.#statusOf(life);
    if (status === undefined) return;
    this.#count("the host has room again");
    if (status.data === "host-full") {
      throw new Violation(
        `the host has room, and ${status.parked} writes wait for it in mode ${status.mode}`,
      );
    }
  }

  #statusOf(life: Life): PoolStatus | undefined {
    const results: AdminResult[] = [];
    if (!life.isOver) life.admin({ verb: "status" }, (result) => results.push(result));
    life.drain();
    const result = results[0];
    return life.isOver || result?.kind !== "status" ? undefined : result.status;
  }

  /** Lets time pass for a command or a removal that rests: it goes on after each pause of the background tasks, which need no client. */
  #endPauses(life: Life): void {
    const { oracle } = this.#world;
    const isBusy = () =>
      oracle.command !== undefined ||
      life.kernel.tasksInFlight().some((task) => /^remove devices/.test(task));
    for (let pauses = 0; isBusy() && !life.isOver && pauses < pausesMax; pauses += 1) {
      life.jump(life.kernel.knobs.backgroundPauseMs);
      life.drain();
    }
  }

  /** No write waits for a data block while some are free, a second after they became so. */
  #checkWaiting(life: Life): void {
    const status = this.#statusOf(life);
    if (status === undefined) return;
    if (status.parked > 0) this.#count(`a write waits, ${status.data}`);
    const isOfSpace = status.mode === "write" || status.mode.startsWith("out-of");
    if (status.parked > 0 && (status.mode === "write" || !isOfSpace)) {
      throw new Violation(`${status.parked} writes wait for space in mode ${status.mode}`);
    }
    const freeBytes = status.data_total_bytes - status.data_used_bytes - status.data_reserved_bytes;
    const mostBytes = this.#world.swarm.volumeBlocksMax * status.block_size_bytes;
    if (status.parked > 0 && status.data === "full" && freeBytes > mostBytes && life.faults.faults === 0) {
      throw new Violation(`${status.parked} writes wait though ${freeBytes} bytes are free`);
    }
  }

  /** Whoever locks a whole volume gets the lock, so nobody holds one; removed volumes leave no region of theirs. */
  checkNothingHeld(life: Life): void {
    const { oracle } = this.#world;
    for (const [name, content] of oracle.current.volumes) {
      if (!(content instanceof WritableContent)) continue;
      const connected = this.#connect(life, name, false);
      life.drain();
      const { sizeBytes } = content;
      const whole = { offsetBytes: 0, lengthBytes: sizeBytes, fua: true, noHole: false, fastZero: false };
      this.#ask(life, connected, { kind: "writeZeroes", data: noBytes, ...whole });
      life.drain();
      this.checkIdle(life);
    }
  }

  #do(kind: ActionKind, life: Life, random: Random, ordinal: number): string | undefined {
    this.#connected = this.#connected.filter(({ client }) => !client.isLost);
    switch (kind) {
      case "connect":
        return this.#connectAny(life, random, ordinal);
      case "disconnect": {
        const some = this.#connected[random.below(this.#connected.length)];
        some?.client.socket.reset();
        return some === undefined ? undefined : "a client vanishes";
      }
      case "admin":
        return this.#administer(life, random, ordinal);
      case "wait":
        life.jump(random.below(3000));
        return "time passes";
      case "drain":
        life.drain();
        if (random.below(2) === 0) life.host.isFull = false;
        if (!life.isOver) this.checkIdle(life);
        return "everything ends";
      case "host":
        life.host.isFull = !life.host.isFull;
        return life.host.isFull ? "the host is full" : "the host has room";
      default:
        return this.#request(life, kind, random, ordinal);
    }
  }

  #connectAny(life: Life, random: Random, ordinal: number): string | undefined {
    const { oracle, swarm } = this.#world;
    const names = [...oracle.current.volumes.keys()];
    if (names.length === 0) {
      if (oracle.command !== undefined) return undefined;
      const sizeBytes = randomSize(random, swarm);
      return this.#command(life, { verb: "create", name: `v${ordinal}`, sizeBytes });
    }
    if (this.#connected.length >= swarm.clientsMax || oracle.command !== undefined) return undefined;
    const name = names[random.below(names.length)]!;
    this.#connect(life, name, random.below(2) === 0);
    return `a client connects to ${name}`;
  }

  #connect(life: Life, name: string, isStructured: boolean): Connected {
    const { oracle } = this.#world;
    const followed = new Map<Asked, Followed>();
    const target = oracle.targetOf(name);
    const client = life.connect(name, isStructured, {
      answered: (asked, error, data) => {
        const one = followed.get(asked)!;
        followed.delete(asked);
        this.#answered(life, target, one, asked, error, data);
      },
      lost: (unanswered) => {
        for (const asked of unanswered) oracle.abandon(followed.get(asked)!);
      },
    });
    const connected = { client, target, followed };
    this.#connected.push(connected);
    return connected;
  }

  #answered(
    life: Life,
    target: Target,
    followed: Followed,
    asked: Asked,
    error: number,
    data: Uint8Array,
  ): void {
    const { oracle } = this.#world;
    this.#count(`${asked.kind} ${error}`);
    if (life.faults.faults === 0 && !isExpected(asked, target, error)) {
      throw new Violation(`a ${asked.kind} was answered with error ${error} though no device failed`);
    }
    this.#world.refusals?.answered(followed, error === NBD_ENOSPC);
    if (asked.kind === "read" && error === 0) {
      oracle.checkRead(target, followed, asked.offsetBytes, data, life.faults.faults > 0);
    }
    oracle.answer(followed, error === 0);
  }

  #count(what: string): void {
    this.answers += 1;
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    for (let at = 0; at < what.length; at += 1) this.#world.mix(what.charCodeAt(at));
  }

  #administer(life: Life, random: Random, ordinal: number): string | undefined {
    const { oracle, swarm } = this.#world;
    if (oracle.command !== undefined) return undefined;
    const command = randomCommand(oracle, random, ordinal, swarm);
    return command === undefined ? undefined : this.#command(life, command);
  }

  #command(life: Life, command: AdminCommand): string {
    const { oracle } = this.#world;
    oracle.begin(command);
    this.#world.refusals?.begun(command);
    life.admin(command, (result) => {
      this.#world.refusals?.ended(command, result);
      const isDone = oracle.end(result);
      if (result.kind === "grown") this.#world.grown = result.sizes;
      this.#count(`${command.verb} ${result.kind}`);
      if (result.kind === "refused" && result.reason.includes("the host is full")) {
        this.#count("a command is refused by a full host");
      }
      if (isDone || result.kind !== "refused" || life.faults.faults > 0) return;
      const isPoolFault = /device|mode (fail|read-only)|poolFailed|damaged/.test(result.reason);
      if (isPoolFault) {
        throw new Violation(`no device failed, and ${command.verb} was refused: ${result.reason}`);
      }
    });
    return JSON.stringify(command);
  }

  #request(life: Life, kind: Asked["kind"], random: Random, ordinal: number): string | undefined {
    const { oracle, swarm } = this.#world;
    const ready = this.#connected.filter(({ client }) => client.isAttached);
    const connected = ready[random.below(ready.length)];
    if (connected === undefined) return undefined;
    const content = oracle.contentOf(connected.target);
    if (content === undefined) return undefined;
    const isSnapshot = connected.target instanceof Cut;
    if (isSnapshot && kind !== "flush" && random.below(20) > 0) kind = "read";
    // Whether a discard covers the last block depends on the size, which is about to change.
    const { verb } = oracle.command ?? {};
    if (kind === "discard" && (isSnapshot || verb === "resize" || verb === "rollback")) return undefined;
    const range = randomRange(random, content.sizeBytes / sectorSizeBytes, swarm.blockSectors);
    const { begin, sectors } = kind === "flush" ? { begin: 0, sectors: 0 } : range;
    const isZeroes = kind === "writeZeroes";
    const number = connected.target instanceof Cut ? 0 : oracle.numberOf(connected.target);
    this.#ask(life, connected, {
      kind,
      offsetBytes: begin * sectorSizeBytes,
      lengthBytes: sectors * sectorSizeBytes,
      data: kind === "write" ? payloadOf(number, begin, sectors, ordinal, swarm) : noBytes,
      fua: kind !== "read" && kind !== "flush" && random.below(8) === 0,
      noHole: isZeroes && random.below(3) === 0,
      fastZero: isZeroes && random.below(6) === 0,
    });
    const end = begin + sectors;
    return kind === "flush" ? kind : `${kind} of sectors ${begin} to ${end} of volume ${number}`;
  }

  #ask(life: Life, connected: Connected, asked: Asked): void {
    const { client, target, followed } = connected;
    const one = this.#world.oracle.submit(target, asked);
    followed.set(asked, one);
    this.#world.refusals?.asked(target, one, asked);
    life.admitted.requests += 1;
    client.ask(asked);
  }
}
