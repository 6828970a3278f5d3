/** The command lines of the benchmarks and of the exhaustive search: each says what is wrong before it begins. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { UsageError } from "../../storage/base/errors.ts";
import { spread } from "../bench/table.ts";
import { type Grammar, type Options, parseOptions } from "./command_options.ts";

const root = new URL("../..", import.meta.url).pathname;
const grammar: Grammar = { usage: "", flags: ["json"], values: ["n", "part"], takesWords: false };

function parsed(...args: string[]): Options {
  const options = parseOptions(grammar, args);
  if (options === "help") throw new Error("no help was asked for");
  return options;
}

const programs = {
  bench: "tests/bench/main.ts",
  picture: "tests/bench/picture.ts",
  scale: "tests/bench/scale.ts",
  profile: "tests/bench/profile.ts",
  exhaustive: "tests/sim/exhaustive/main.ts",
} as const;

/** Runs a program with no place for files: none of these may come so far. */
async function run(program: keyof typeof programs, args: readonly string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-prompt", programs[program], ...args],
    cwd: root,
    env: { NO_COLOR: "1", TMPDIR: "/nowhere" },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("a list of numbers takes whole numbers within its bounds only", () => {
  assertEquals(parsed("--n", "5,10").counts("n", [1], 10), [5, 10]);
  assertEquals(parsed("--n=").counts("n", [1], 10), []);
  assertEquals(parsed().counts("n", [1], 10), [1]);
  for (const wrong of ["abc", "0", "-1", "11", "1.5", "1e1", "5,x", "NaN", "Infinity"]) {
    assertThrows(() => parsed(`--n=${wrong}`).counts("n", [1], 10), UsageError, "--n takes whole numbers");
  }
});

Deno.test("a number with a fraction lies above 0 and within its bound", () => {
  assertEquals(parsed("--n", "0.5").positive("n", 1, 10), 0.5);
  for (const wrong of ["abc", "0", "-1", "10.1", "Infinity"]) {
    assertThrows(() => parsed(`--n=${wrong}`).positive("n", 1, 10), UsageError, "--n takes a number");
  }
});

Deno.test("what no option is, what comes twice and what has no value is refused", () => {
  assertThrows(() => parsed("--bogus"), UsageError, "no option --bogus");
  assertThrows(() => parsed("word"), UsageError, '"word" belongs to no option');
  assertThrows(() => parsed("--n", "1", "--n", "2"), UsageError, "more than once");
  assertThrows(() => parsed("--n"), UsageError, "--n needs a value");
  const words = parseOptions({ ...grammar, takesWords: true }, ["a", "1"]);
  assertEquals(words !== "help" && words.words, ["a", "1"]);
});

for (const program of Object.keys(programs) as (keyof typeof programs)[]) {
  Deno.test(`${program} --help is its usage and nothing else`, async () => {
    const { code, stdout, stderr } = await run(program, ["--help"]);
    assertEquals([code, stderr], [0, ""]);
    assert(stdout.startsWith("usage: deno task "), stdout);
  });
}

const refused: readonly (readonly [keyof typeof programs, string[], string])[] = [
  ["bench", ["--rounds", "0"], "--rounds takes whole numbers"],
  ["bench", ["--size", "much"], "is not a size"],
  ["bench", ["--rows", "nothing"], 'Nothing is called "nothing"'],
  ["picture", [], "Give one file"],
  ["scale", ["--mappings", "abc"], "--mappings takes whole numbers"],
  ["scale", ["--volumes", "70000"], "--volumes takes whole numbers from 1 to 65533"],
  ["profile", ["--seconds=-1"], "--seconds takes a number"],
  ["exhaustive", ["--bogus"], "no option --bogus"],
  ["exhaustive", ["nothing"], 'No group is called "nothing"'],
];

for (const [program, args, sentence] of refused) {
  Deno.test(`${program} ${args.join(" ")} is refused with a sentence`, async () => {
    const { code, stdout, stderr } = await run(program, args);
    assertEquals([code, stdout], [2, ""]);
    assert(stderr.includes(sentence) && stderr.trim().split("\n").length === 1, stderr);
  });
}

Deno.test("the list of workloads and servers holds what was chosen", async () => {
  const { code, stdout } = await run("bench", [
    "--list",
    "--rows",
    "random write d1 c1",
    "--servers",
    "ours",
  ]);
  assertEquals([code, stdout], [0, "4k random write d1 c1\n\nservers: ours\n"]);
});

Deno.test("one value has no spread", () => {
  assertEquals([spread([7]), spread([9, 10, 11])], ["-", "20%"]);
});
