/** Whether Deno may connect to a control socket. */
import fs from "node:fs";
import { resolve } from "node:path";
import { UserError } from "../../storage/errors.ts";

/**
 * True if a server can be asked at this path, as far as permissions go; false if there is no socket to ask at.
 * Never prompts. Throws {@linkcode UserError} if only the permission is missing: the pool is then likely in use.
 */
export function mayAskControl(path: string): boolean {
  const full = resolve(path);
  const wanted = [
    { descriptor: { name: "net", host: `unix:${full}` }, option: `--allow-net=unix:${full}` },
    { descriptor: { name: "read", path }, option: `--allow-read=${path}` },
    { descriptor: { name: "write", path }, option: `--allow-write=${path}` },
  ] as const;
  const missing = wanted.filter(({ descriptor }) =>
    Deno.permissions.querySync(descriptor).state !== "granted"
  );
  if (missing.length === 0) return true;
  // Who may not even look will hear of it when the pool is opened.
  if (missing.some(({ descriptor }) => descriptor.name === "read") || !fs.existsSync(path)) return false;
  throw new UserError(
    `Cannot ask the server at ${path}: Deno was not given the permission. Add ${
      missing.map(({ option }) => option).join(" ")
    }, or stop the server first.`,
  );
}
