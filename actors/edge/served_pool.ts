/** What carries out the commands of the control socket: those about clients the NBD listener, all others the pool. */
import type { AdminResult, Command } from "../control/admin_command.ts";
import { isServerCommand } from "../control/verbs.ts";
import { clientCommand } from "../nbd/client_commands.ts";
import type { NbdListenerStub } from "../nbd/listener.ts";
import type { CommandHandler } from "./control_server.ts";
import type { DumpWriter } from "./pool_offline.ts";
import type { PoolProcess } from "./pool_process.ts";

/** See the head of this file. */
export class ServedPool implements CommandHandler {
  readonly #process: PoolProcess;
  /** Set once all addresses are bound; the control socket may be asked before. */
  listener: NbdListenerStub | undefined;

  constructor(process: PoolProcess) {
    this.#process = process;
  }

  get log(): (sentence: string) => void {
    return this.#process.log;
  }

  command(command: Command): Promise<AdminResult> {
    if (!isServerCommand(command)) return this.#process.command(command);
    if (this.listener === undefined) {
      return Promise.resolve({ kind: "refused", reason: "The server is only starting. Try again." });
    }
    return this.#process.ask(command.verb, clientCommand(command, this.listener, this.#process.pool));
  }

  dump(write: DumpWriter): Promise<AdminResult> {
    return this.#process.dump(write);
  }
}
