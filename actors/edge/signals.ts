/**
 * What signals mean to a process that serves.
 *
 *   SIGTERM, SIGINT, SIGQUIT  drain and end; the second of them ends at once
 *   SIGHUP                    reload what can be, where that is asked for; else the same, though never at once, since a
 *                             terminal that closes sends it twice, and systemd may send it with SIGTERM
 *   SIGUSR1, SIGUSR2          nothing
 *
 * SIGPIPE is ignored by Deno from its start: a reader that is gone is an error of the write.
 */
import { ignoreSignal } from "./ignored_signals.ts";

/** Where signals go. */
export interface SignalHandlers {
  /** Asks to end; may be called again. */
  stop(): void;
  /** Ends the process now. */
  stopAtOnce(): void;
  /** Reloads; undefined where there is nothing to. */
  readonly reload: (() => void) | undefined;
}

/** Listens to signals for as long as the process runs. */
export function listenToSignals({ stop, stopAtOnce, reload }: SignalHandlers): void {
  let count = 0;
  for (const signal of ["SIGINT", "SIGTERM", "SIGQUIT"] as const) {
    Deno.addSignalListener(signal, () => {
      count += 1;
      if (count > 1) stopAtOnce();
      else stop();
    });
  }
  Deno.addSignalListener("SIGHUP", reload ?? stop);
  Deno.addSignalListener("SIGUSR2", () => {});
}

/**
 * Keeps SIGUSR1 from opening Deno's inspector, where the C library can be called; elsewhere only from ending the process
 * before Deno listens to it. Called at the start of the program.
 */
export function refuseInspector(): void {
  Deno.addSignalListener("SIGUSR1", () => {});
  ignoreSignal("SIGUSR1");
}
