/** The reference page of the command line and the control API, from the tables of verbs and options. */
import type { AdminCommand, Command } from "../../actors/control/admin_command.ts";
import { grammarOf, optionOf, writtenOption } from "../../actors/control/usage_text.ts";
import {
  commandOfPath,
  filesVerbOf,
  isLook,
  isServerCommand,
  jsonOfCommand,
  optionsOf,
  verbs,
  verbTable,
} from "../../actors/control/verbs.ts";
import type { Verb } from "../../actors/control/verb_table.ts";
import { commandOf, parseInvocation } from "../../actors/edge/invocation.ts";

const head =
  `<!-- Written by \`deno task reference\` from actors/control/verb_table.ts and actors/control/verb_options.ts. -->

# Reference

Every command, as \`--help\` has it, and as JSON for \`POST /v1/commands\` of the control socket. Exit status 0: done,
1: failed or refused, 2: wrong usage. Results are on stdout, everything else is on stderr.
`;

/** The page. Its lines are not wrapped: \`deno fmt\` does that. */
export function referenceText(): string {
  return [head, ...verbs.map(sectionOf)].join("\n");
}

function sectionOf(verb: Verb): string {
  const { summary, example } = verbTable[verb];
  const options = optionsOf(verb);
  const command = commandOf(parseInvocation(example.split(" ")));
  return [
    `## ${verb}`,
    "",
    `${summary}.`,
    "",
    "```",
    `gossamer [--pool DIR] ${grammarOf(verb, options)}`,
    "```",
    "",
    ...options.length === 0 ? [] : [
      "| Option | What it does |",
      "| --- | --- |",
      ...options.map((name) =>
        `| \`${cell(writtenOption(name, verb))}\` | ${cell(optionOf(name, verb).help)} |`
      ),
      "",
    ],
    `Example: \`gossamer ${example}\`${
      command === undefined ? "" : `; as JSON \`${JSON.stringify(jsonOfCommand(command))}\``
    }`,
    "",
    ...command === undefined ? [] : [whereIt(command), ""],
  ].join("\n");
}

/** What the command does to others, and whether it needs a server. */
function whereIt(command: Command): string {
  const paths = [...commandOfPath].filter(([, { verb }]) => verb === command.verb).map(([path]) => path);
  const server = isServerCommand(command)
    ? "It needs a server."
    : filesVerbOf(command as AdminCommand) !== undefined
    ? "Without a server it only reads the pool's files."
    : "Without a server it opens the pool itself.";
  return [
    isLook(command) ? "It changes nothing." : "",
    server,
    optionsOf(command.verb).includes("clear-needs-check")
      ? "With `--clear-needs-check` it also writes: it clears that mark of a pool that no process has open."
      : "",
    ...paths.map((path) => `\`GET ${path}\` answers what \`--json\` prints.`),
  ].filter((sentence) => sentence !== "").join(" ");
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

/** Where the page is. */
export const referenceUrl = new URL("../../docs/reference.md", import.meta.url);

if (import.meta.main) await Deno.writeTextFile(referenceUrl, referenceText());
