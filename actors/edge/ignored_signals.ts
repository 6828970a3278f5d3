/**
 * Ignoring a signal for good. Half a second after its start, Deno (2.9.2 and later) begins to answer SIGUSR1 with an inspector on
 * 127.0.0.1:9229, through which every user of the host can run code in the process. A listener of ours does not prevent it, and
 * there is no option that does. Only the C library can have Linux drop the signal.
 */
import { fromLibc, libraryName } from "./libc_symbols.ts";

/** Numbers on Linux, the same on x86-64 and arm64. */
const numbers = { SIGUSR1: 10 } as const;
/** SIG_IGN of signal(2). */
const ignore = 1n;

/**
 * Has Linux drop a signal; false where the C library cannot be called. A listener must have been added before: with the
 * first one Deno sets the signal's handler, and never again.
 */
export function ignoreSignal(signal: keyof typeof numbers): boolean {
  const symbols = fromLibc(() =>
    Deno.dlopen(libraryName, { signal: { parameters: ["i32", "isize"], result: "isize" } }).symbols
  );
  symbols?.signal(numbers[signal], ignore);
  return symbols !== undefined;
}
