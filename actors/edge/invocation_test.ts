/** The table of verbs, the grammar that comes from it, and the JSON of commands. */
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../storage/base/errors.ts";
import { wholeOf } from "../../storage/slices.ts";
import { usageText } from "../control/usage_text.ts";
import { optionNames, optionTable } from "../control/verb_options.ts";
import {
  commandSlices,
  isCommandVerb,
  isLook,
  jsonOfCommand,
  optionsOf,
  verbs,
  verbTable,
  wordsOf,
} from "../control/verbs.ts";
import { commandOf, parseInvocation } from "./invocation.ts";

function commandOfLine(line: string) {
  return commandOf(parseInvocation(line.split(" ")));
}

function commandOfJson(json: unknown) {
  return wholeOf(commandSlices(json, 2));
}

Deno.test("each verb's example follows its grammar, and means a command of that verb if it has one", () => {
  for (const verb of verbs) {
    const invocation = parseInvocation(verbTable[verb].example.split(" "));
    assertEquals(invocation.verb, verb);
    assertEquals(commandOf(invocation)?.verb, isCommandVerb(verb) ? verb : undefined);
  }
});

Deno.test("a command is the same after it went through JSON", () => {
  const lines = verbs.filter(isCommandVerb).map((verb) => verbTable[verb].example);
  for (const line of [...lines, "rm a b@s c d e -n", "rm a --force", "snapshot a@s b@s c@s d@s e@s"]) {
    const command = commandOfLine(line)!;
    assertEquals(commandOfJson(JSON.parse(JSON.stringify(jsonOfCommand(command)))), command, line);
  }
});

Deno.test("the JSON of a command has the names that the control API promises", () => {
  const expected: readonly (readonly [line: string, json: string])[] = [
    [
      "create a 1K",
      '{"verb":"create","name":"a","size_bytes":1024,"single_writer":false,"ephemeral":false,"linger_ms":null,"ttl_ms":null}',
    ],
    ["snapshot a@s", '{"verb":"snapshot","names":["a@s"]}'],
    [
      "clone a@s b",
      '{"verb":"clone","source":"a@s","name":"b","ephemeral":false,"linger_ms":null,"ttl_ms":null}',
    ],
    ["rollback a@s", '{"verb":"rollback","snapshot":"a@s","force":false}'],
    ["rename a b", '{"verb":"rename","from":"a","to":"b"}'],
    ["resize a 512", '{"verb":"resize","name":"a","size_bytes":512,"shrink":false,"force":false}'],
    ["rm a -n", '{"verb":"rm","names":["a"],"dry_run":true,"force":false,"wait":false}'],
    ["dump", '{"verb":"dump"}'],
    ["clients", '{"verb":"clients"}'],
    ["kick 3 --for 1.5s", '{"verb":"kick","client":3,"refuse_ms":1500}'],
  ];
  for (const [line, json] of expected) {
    assertEquals(JSON.stringify(jsonOfCommand(commandOfLine(line)!)), json);
  }
});

Deno.test("a field of the wrong type or name is refused by its name", () => {
  const wrong: readonly (readonly [json: unknown, says: RegExp])[] = [
    [null, /it is not an object/],
    [{ verb: "serve" }, /"verb" is none of create, snapshot, clone/],
    [{ verb: "toString" }, /"verb" is none of/],
    [{ verb: "create", name: 7, size_bytes: 1 }, /"name" is not a string/],
    [{ verb: "create", name: "a", size_bytes: 1.5 }, /"size_bytes" is not a positive number of bytes/],
    [{ verb: "rm", names: ["a", 1] }, /"names" is not a list of strings/],
    [{ verb: "kick", client: 1.5 }, /"client" is not a client's number/],
    [{ verb: "kick", client: 1, refuse_ms: "1" }, /"refuse_ms" is not a number of milliseconds/],
    [{ verb: "rm", names: ["a"], force: "no" }, /"force" is neither true nor false/],
    [{ verb: "rm", names: ["a"], dryRun: true }, /rm has no "dryRun"/],
    [{ verb: "status", names: [] }, /status has no "names"/],
  ];
  for (const [json, says] of wrong) {
    assertMatch(assertThrows(() => commandOfJson(json), UserError).message, says);
  }
});

Deno.test("only what changes nothing is a look", () => {
  const looks = verbs.filter(isCommandVerb).filter((verb) => isLook(commandOfLine(verbTable[verb].example)!));
  assertEquals(looks, ["list", "tree", "df", "status", "check", "dump", "clients"]);
  assert(isLook(commandOfLine("rm a -n")!));
});

Deno.test("every option with a value takes it behind = and as the next argument", () => {
  for (const verb of verbs) {
    for (const name of optionsOf(verb)) {
      const { value } = optionTable[name];
      if (value === undefined) continue;
      const words = verbTable[verb].example.split(" ").filter((word) => !word.startsWith("-"));
      const [apart, joined] = [[`--${name}`, "7"], [`--${name}=7`]].map((option) =>
        parseInvocation([words[0]!, ...option, ...wordsOf(verb).filter((word) => !word.startsWith("["))])
      );
      assertEquals(joined, apart, `${verb} --${name}`);
    }
  }
});

Deno.test("an option without a value is refused one, so that it is not left out or taken by mistake", () => {
  for (const line of ["rm a -n=1", "rm a --dry-run=no", "list -Hp=1", "rm a --force=false"]) {
    assertThrows(() => parseInvocation(line.split(" ")), UserError, "takes no value");
  }
  // What a program is run with is its own, and so is the value of an option.
  assertEquals(parseInvocation("run --size=1M -- cmd --force=1".split(" ")).words, ["cmd", "--force=1"]);
});

Deno.test("the help has every verb with its summary, and every option with its help, in lines that a terminal shows", () => {
  const help = usageText();
  for (const verb of verbs) {
    assertMatch(help, new RegExp(`^  ${verb}\\b`, "m"));
    assertStringIncludes(help, verbTable[verb].summary);
  }
  for (const name of optionNames) {
    assertMatch(help, new RegExp(`^  (-., )?--${name}\\b`, "m"));
    assertStringIncludes(help, optionTable[name].help);
    assert(verbs.some((verb) => optionsOf(verb).includes(name)), `no verb takes --${name}`);
  }
  for (const line of help.split("\n")) assert(line.length <= 132, line);
});

Deno.test("the help about a verb has its summary, its words, its example, and its options and no others", () => {
  for (const verb of verbs) {
    const help = usageText(verb);
    assert(help.startsWith(`${verb}: ${verbTable[verb].summary}\n`), help);
    assertStringIncludes(help, [verb, ...wordsOf(verb)].join(" "));
    assert(help.endsWith(` ${verbTable[verb].example}`), help);
    const named = [...help.matchAll(/^ {2}(?:-., )?--([\w-]+)/gm)].map(([, name]) => name);
    assertEquals(named, [...optionsOf(verb)]);
  }
});
