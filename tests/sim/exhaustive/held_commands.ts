/** How each kind of request is asked of the product: as a command, or as a bio. */
import type { AdminCommand, AdminResult } from "../../../actors/control/admin_command.ts";
import type { BioKind } from "../../../actors/volume/bio.ts";
import { nameOfPattern } from "../../../storage/base/name_pattern.ts";
import { type Kind, type Op, type Scenario, snapshotsOf } from "./scenario.ts";

type CommandKind = "snapshot" | "two snapshots" | "three forks" | "rm" | "grow" | "rollback" | "clone";

const commandKinds: readonly Kind[] = [
  "snapshot",
  "two snapshots",
  "three forks",
  "rm",
  "grow",
  "rollback",
  "clone",
] satisfies CommandKind[];

export function isCommand(kind: Kind): kind is CommandKind {
  return commandKinds.includes(kind);
}

/** The command of a request that is one. */
export function commandOf(op: Op, { state }: Scenario): AdminCommand {
  switch (op.kind) {
    case "grow":
      return { verb: "rescan" };
    case "rm":
      return { verb: "rm", names: ["a@base"], force: true, dryRun: false };
    case "rollback":
      return { verb: "rollback", snapshot: "a@base", force: true };
    case "clone":
      return { verb: "clone", source: state === "shared" ? "a@base" : "a", name: "b" };
    case "three forks": {
      const settings = { ephemeral: false, lingerMs: null, ttlMs: null };
      return { verb: "fork", source: "a", count: 3, name: `f${op.number}-%d`, ...settings };
    }
    default:
      return { verb: "snapshot", names: snapshotsOf(op) };
  }
}

/** The same for no two commands of a scenario. */
export function keyOf(command: AdminCommand): string {
  if (command.verb === "fork") return nameOfPattern(command.name!, 1);
  return command.verb === "snapshot" ? command.names[0]! : command.verb;
}

/** What a command came to, in the words of a bio's status. */
export function statusOf(answer: AdminResult): string {
  if (answer.kind === "refused") return answer.reason;
  return ["done", "grown", "forked", "rolledBack"].includes(answer.kind) ? "ok" : answer.kind;
}

export const bioKinds: Readonly<Record<Exclude<Kind, CommandKind>, BioKind>> = {
  read: "read",
  "partial write": "write",
  "covering write": "write",
  "FUA write": "write",
  "other's FUA write": "write",
  "clone's write": "write",
  "clone's FUA write": "write",
  discard: "discard",
  "other's discard": "discard",
  "write-zeroes": "writeZeroes",
  flush: "flush",
};
