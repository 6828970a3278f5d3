/** Times as people write them: `60s`, `500ms`, `5m`, `1.5h`; a bare number is seconds. */
import { UsageError } from "./errors.ts";

const pattern = /^(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h)?$/;
const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds from a time, rounded up: at least 1. Throws {@linkcode UsageError}. */
export function parseDurationMs(text: string): number {
  const [, number = "", unit = "s"] = pattern.exec(text) ?? [];
  const durationMs = Math.ceil(Number(number) * unitMs[unit]!);
  if (number !== "" && durationMs > 0) return durationMs;
  throw new UsageError(
    `${JSON.stringify(text.slice(0, 100))} is not a time. Write one such as 60s, 500ms, 5m or 1h.`,
  );
}
