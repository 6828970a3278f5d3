/** The pool's side of the border (border.ts): carries out what the main side asks of one pool and of its servers. */
import { assert, present, unreachable } from "../../storage/base/assert.ts";
import type { AdminResult, TextTaken } from "../control/admin_command.ts";
import { type FromPool, type OpenSettings, plainOf, type PoolRequest, type ToPool } from "./border.ts";
import { HeldVolumes } from "./held_volumes.ts";
import { denoIo, type HostIo } from "./host_io.ts";
import { NbdServer, tryListen } from "./nbd_server.ts";
import { PoolProcess } from "./pool_process.ts";
import { withTurns } from "./turns.ts";

/** See the head of this file. */
export class PoolService {
  readonly #tell: (message: FromPool) => void;
  #process: PoolProcess | undefined;
  #heldVolumes: HeldVolumes | undefined;
  /** Servers by the number of the request that made them. */
  readonly #servers = new Map<number, NbdServer>();
  /** Dumps of which a piece is under way, by the number of their request. */
  readonly #pieces = new Map<number, (taken: TextTaken) => void>();

  readonly #io: HostIo;

  /** @param tell sends to the main side */
  constructor(tell: (message: FromPool) => void, io: HostIo = denoIo) {
    this.#tell = tell;
    this.#io = io;
  }

  receive(message: ToPool): void {
    switch (message.type) {
      case "textTaken":
        return this.#textTaken(message.number, message.taken);
      case "certificates":
        return this.#servers.get(message.server)?.useCertificates(message.keys);
      case "tlsSecured":
      case "tlsBroken":
      case "tlsOver":
        return present(this.#io.tls, "TLS of a relay where there is none").heard(message);
      default: {
        const { number } = message;
        withTurns(this.#io.eventLoop, () => this.#carriedOut(message)).then(
          (answer) => this.#tell(answer),
          (error) => this.#tell({ type: "threw", number, error: plainOf(error) }),
        );
      }
    }
  }

  async #carriedOut(message: PoolRequest): Promise<FromPool> {
    const { number } = message;
    switch (message.type) {
      case "open":
        return await this.#open(number, message.settings);
      case "command":
        return resultOf(number, await this.#opened.command(message.command));
      case "dump":
        return resultOf(number, await this.#dump(number));
      case "tryListen":
        await tryListen(message.settings, this.#io.sockets);
        return { type: "done", number };
      case "listen": {
        const server = await NbdServer.bind(this.#opened, message.settings, message.clientsMax);
        assert(!this.#servers.has(number), "two servers have one number");
        this.#servers.set(number, server);
        this.#opened.noteHostLacks();
        return { type: "done", number };
      }
      case "accept":
        return { type: "listening", number, addresses: await this.#server(message.server).accept() };
      case "clientCommand":
        return resultOf(number, await this.#server(message.server).command(message.command));
      case "hold": {
        const held = await this.#holds.hold(this.#server(message.server), message.content);
        return held.kind === "held" ? { type: "held", number, volume: held } : resultOf(number, held);
      }
      case "release":
        return resultOf(number, await this.#holds.release(this.#server(message.server), message.uid));
      case "stopListening": {
        await this.#server(message.server).stop();
        const wasThere = this.#servers.delete(message.server);
        assert(wasThere, "a server is stopped once");
        return { type: "done", number };
      }
      case "close":
        await this.#opened.close();
        return { type: "done", number };
      default:
        return unreachable(message);
    }
  }

  get #opened(): PoolProcess {
    return present(this.#process, "a pool is opened before anything is asked of it");
  }

  get #holds(): HeldVolumes {
    return this.#heldVolumes ??= new HeldVolumes(this.#opened);
  }

  #server(number: number): NbdServer {
    return present(this.#servers.get(number), "a server is asked for by the number of its request");
  }

  async #open(number: number, { directory, ...options }: OpenSettings): Promise<FromPool> {
    assert(this.#process === undefined, "a service has one pool");
    const log = (text: string) => this.#tell({ type: "log", record: { text } });
    const process = await PoolProcess.open(directory, { ...options, log }, undefined, this.#io);
    this.#process = process;
    const failed = (error: unknown) => this.#tell({ type: "failed", error: plainOf(error) });
    process.defect.then(failed, failed);
    const { writeRefusal, lacksMetadata } = process;
    return { type: "opened", number, writeRefusal, lacksMetadata };
  }

  #dump(number: number): Promise<AdminResult> {
    return this.#opened.dump({
      write: (text, done) => {
        assert(!this.#pieces.has(number), "a dump waits until its piece is taken");
        this.#pieces.set(number, done);
        this.#tell({ type: "text", number, text });
      },
    });
  }

  #textTaken(number: number, taken: TextTaken): void {
    const done = present(this.#pieces.get(number), "a piece was taken that was not sent");
    this.#pieces.delete(number);
    done(taken);
  }
}

function resultOf(number: number, result: AdminResult): FromPool {
  return { type: "result", number, result };
}
