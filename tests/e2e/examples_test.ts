/** The examples in the documentation are programs, and they run. */
import { assertEquals } from "@std/assert";

const root = new URL("../../", import.meta.url);

/** The TypeScript blocks of a document. */
async function examplesIn(path: string): Promise<string[]> {
  const text = (await Deno.readTextFile(new URL(path, root))).replaceAll(/^ \* ?/gm, "");
  return [...text.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => match[1]!);
}

for (const path of ["README.md", "mod.ts"]) {
  Deno.test(`the example in ${path} runs as it stands`, async () => {
    const examples = await examplesIn(path);
    assertEquals(examples.length, 1);
    const program = examples[0]!.replace("./mod.ts", new URL("mod.ts", root).href);
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `--config=${new URL("deno.json", root).pathname}`, "-"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    const child = command.spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(program));
    await writer.close();
    const { success, stdout, stderr } = await child.output();
    assertEquals(new TextDecoder().decode(stderr), "");
    assertEquals(success, true);
    assertEquals(new TextDecoder().decode(stdout).includes("nbd"), true);
  });
}
