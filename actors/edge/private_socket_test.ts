import { assertEquals, assertStringIncludes } from "@std/assert";
import { listenPrivately } from "./private_socket.ts";

const module = new URL("private_socket.ts", import.meta.url).href;

/** Binds in a Deno of its own that may only do what it is allowed; prints the mode before it is set, or the sentence. */
async function bindElsewhere(folder: string, ...permissions: string[]): Promise<string> {
  const path = `${folder}/s.sock`;
  const code = `
    const { listenPrivately } = await import(${JSON.stringify(module)});
    const chmod = Deno.chmodSync;
    Deno.chmodSync = (path, mode) => {
      console.log((Deno.lstatSync(path).mode & 0o777).toString(8));
      chmod(path, mode);
    };
    try {
      listenPrivately(${JSON.stringify(path)}).close();
    } catch (error) {
      console.log(error.message);
    }`;
  const file = `${folder}/bind.ts`;
  await Deno.writeTextFile(file, code);
  const allowed = [`--allow-read`, `--allow-write=${folder}`, `--allow-net=unix:${path}`, ...permissions];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--no-prompt", "--quiet", ...allowed, file],
  }).output();
  return new TextDecoder().decode(stdout.length > 0 ? stdout : stderr).trim();
}

Deno.test("a socket is bound with the mode of its owner alone, by whatever Deno may do for it", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-bind-" });
  try {
    await Deno.chmod(folder, 0o755);
    for (const permission of ["--allow-sys", "--allow-ffi"]) {
      assertEquals(await bindElsewhere(folder, permission), "600", permission);
    }
    assertStringIncludes(await bindElsewhere(folder), "Add --allow-ffi or --allow-sys");
    // Through a directory of mode 0700 nothing reaches the socket, so its mode may come later.
    await Deno.chmod(folder, 0o700);
    assertEquals(await bindElsewhere(folder), "755");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("the umask is as before once a socket is bound, also where that failed", async () => {
  const folder = await Deno.makeTempDir({ prefix: "gossamer-bind-" });
  const before = Deno.umask();
  try {
    listenPrivately(`${folder}/s.sock`).close();
    assertEquals(Deno.umask(), before);
    try {
      listenPrivately(`${folder}/missing/s.sock`);
    } catch {
      // As wanted.
    }
    assertEquals(Deno.umask(), before);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
