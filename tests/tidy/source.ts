/** Source text for the tidy rules: files, their code without comments and strings, and the functions in it. */

/** A file, and its code: the same text with comments, strings and regular expressions blanked out. */
export class Source {
  readonly code: string;
  readonly #lineBegins: number[] = [0];
  #functions: readonly FunctionText[] | undefined;

  constructor(readonly path: string, readonly text: string) {
    this.code = path.endsWith(".ts") ? new Masker(text).mask() : text;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) this.#lineBegins.push(at + 1);
  }

  /** True for what only tests use. */
  get isTest(): boolean {
    return this.path.startsWith("tests/") || /_(test|testing)\.ts$/.test(this.path);
  }

  /** The line of a position, counted from 1. */
  lineOf(at: number): number {
    let line = 1;
    while (line < this.#lineBegins.length && this.#lineBegins[line]! <= at) line += 1;
    return line;
  }

  get linesCount(): number {
    return this.lineOf(this.text.trimEnd().length);
  }

  /** The functions with a body, inner ones before those around them. */
  get functions(): readonly FunctionText[] {
    this.#functions ??= functionsOf(this.code);
    return this.#functions;
  }

  finding(at: number, message: string): string {
    return `${this.path}:${this.lineOf(at)}: ${message}`;
  }
}

/** Blanks what is no code. Quotes and line ends stay, so every position is the same in both texts. */
class Masker {
  readonly #text: string;
  readonly #out: string[] = [];
  #at = 0;
  /** The last character of code that is no space. */
  #last = "";
  /** The depth of braces in each template expression that is open. */
  readonly #templateDepths: number[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  mask(): string {
    while (this.#at < this.#text.length) this.#next();
    return this.#out.join("");
  }

  #next(): void {
    const char = this.#text[this.#at]!;
    const two = this.#text.slice(this.#at, this.#at + 2);
    if (two === "//") return this.#blankTo(this.#indexOf("\n"));
    if (two === "/*") return this.#blankTo(this.#indexOf("*/") + 2);
    if (char === '"' || char === "'") return this.#string(char);
    if (char === "/" && this.#isRegExpHere()) return this.#regExp();
    if (char === "`") {
      this.#keep(1);
      return this.#template();
    }
    const depths = this.#templateDepths;
    if (depths.length > 0) {
      if (char === "{") depths[depths.length - 1]! += 1;
      if (char === "}") {
        depths[depths.length - 1]! -= 1;
        if (depths.at(-1) === 0) {
          depths.pop();
          this.#keep(1);
          return this.#template();
        }
      }
    }
    this.#keep(1);
  }

  #indexOf(end: string): number {
    const at = this.#text.indexOf(end, this.#at + 1);
    return at < 0 ? this.#text.length : at;
  }

  #keep(count: number): void {
    const end = this.#at + count;
    for (; this.#at < end; this.#at += 1) {
      const char = this.#text[this.#at]!;
      this.#out.push(char);
      if (char.trim() !== "") this.#last = char;
    }
  }

  #blankTo(end: number): void {
    for (; this.#at < end && this.#at < this.#text.length; this.#at += 1) {
      this.#out.push(this.#text[this.#at] === "\n" ? "\n" : " ");
    }
  }

  #string(quote: string): void {
    this.#keep(1);
    let end = this.#at;
    while (end < this.#text.length && this.#text[end] !== quote && this.#text[end] !== "\n") {
      end += this.#text[end] === "\\" ? 2 : 1;
    }
    this.#blankTo(end);
    this.#keep(1);
  }

  #template(): void {
    let end = this.#at;
    while (end < this.#text.length && this.#text[end] !== "`" && !this.#text.startsWith("${", end)) {
      end += this.#text[end] === "\\" ? 2 : 1;
    }
    this.#blankTo(end);
    if (this.#text[this.#at] === "`") return this.#keep(1);
    this.#keep(2);
    this.#templateDepths.push(1);
  }

  #isRegExpHere(): boolean {
    if (this.#last === "" || "(,=:[!&|?{};+-*%~^<>".includes(this.#last)) return true;
    const before = this.#out.slice(-20).join("").trimEnd();
    return /\b(return|typeof|case|yield|of|in)$/.test(before);
  }

  #regExp(): void {
    this.#keep(1);
    let end = this.#at;
    let isInClass = false;
    for (; end < this.#text.length && this.#text[end] !== "\n"; end += 1) {
      const char = this.#text[end];
      if (char === "\\") end += 1;
      else if (char === "[") isInClass = true;
      else if (char === "]") isInClass = false;
      else if (char === "/" && !isInClass) break;
    }
    this.#blankTo(end);
    this.#keep(1);
  }
}

/** A function, method or arrow with a body in braces. Positions are those of the file. */
export interface FunctionText {
  readonly name: string;
  readonly isGenerator: boolean;
  readonly isMethod: boolean;
  /** Where its header begins, and where its body does and ends. */
  readonly begin: number;
  readonly bodyBegin: number;
  readonly bodyEnd: number;
}

interface Frame {
  readonly open: string;
  readonly at: number;
  readonly headerBegin: number;
  readonly isObject: boolean;
  statementBegin: number;
}

/** Finds the functions of masked code by its brackets. */
export function functionsOf(code: string): FunctionText[] {
  const found: FunctionText[] = [];
  const frames: Frame[] = [{ open: "", at: -1, headerBegin: 0, isObject: false, statementBegin: 0 }];
  for (let at = 0; at < code.length; at += 1) {
    const char = code[at]!;
    const top = frames.at(-1)!;
    if (char === "(" || char === "[" || char === "{") {
      const isObject = char === "{" && /([(=:,[?]|\breturn)\s*$/.test(code.slice(Math.max(0, at - 40), at));
      frames.push({ open: char, at, headerBegin: top.statementBegin, isObject, statementBegin: at + 1 });
    } else if (char === ";" || (char === "," && (top.open === "(" || top.open === "[" || top.isObject))) {
      top.statementBegin = at + 1;
    } else if ((char === ")" || char === "]" || char === "}") && frames.length > 1) {
      frames.pop();
      if (char !== "}") continue;
      const text = functionText(code, top, at);
      if (text !== undefined) found.push(text);
      // A type in braces is followed by more of the same header.
      if (!/^\s*[{,)\]>|&=;]/.test(code.slice(at + 1, at + 200))) frames.at(-1)!.statementBegin = at + 1;
    }
  }
  return found;
}

const modifiers = /^(?:(?:export|default|public|private|protected|static|override|async|get|set)\s+)*/;
const noFunction =
  /^(if|for|while|switch|catch|with|return|else|do|try|finally|class|interface|case|enum|type)\b/;

function functionText(code: string, frame: Frame, end: number): FunctionText | undefined {
  const raw = code.slice(frame.headerBegin, frame.at);
  const begin = frame.headerBegin + raw.length - raw.trimStart().length;
  const header = raw.trim().replace(modifiers, "");
  // Braces of a type or of a value.
  if (/(^|[:|&,(?[<=])$/.test(header)) return undefined;
  const place = { begin, bodyBegin: frame.at, bodyEnd: end };
  const declared = /\bfunction\b\s*(\*?)\s*([\w$]*)/.exec(header);
  if (declared !== null) {
    return { name: declared[2] || "function", isGenerator: declared[1] === "*", isMethod: false, ...place };
  }
  if (header.endsWith("=>")) {
    const name = /^(?:const|let)\s+([\w$]+)/.exec(header)?.[1] ?? "arrow function";
    return { name, isGenerator: false, isMethod: false, ...place };
  }
  if (noFunction.test(header)) return undefined;
  const method = /^(\*?)\s*(#?[\w$]+|\[[\w$.\s]+\])\s*(<[^(]*>)?\s*\([^]*\)\s*(:[^]*)?$/.exec(header);
  if (method === null) return undefined;
  return { name: method[2]!, isGenerator: method[1] === "*", isMethod: true, ...place };
}

/** Where the bracket at this position is closed. */
export function closingOf(code: string, openAt: number): number {
  let depth = 0;
  for (let at = openAt; at < code.length; at += 1) {
    if ("([{".includes(code[at]!)) depth += 1;
    if (")]}".includes(code[at]!)) depth -= 1;
    if (depth === 0) return at;
  }
  return code.length;
}

/** Every text file of the repository that is ours: code, pages, configuration. */
export function readSources(root: URL): Source[] {
  const sources: Source[] = [];
  const visit = (folder: string): void => {
    for (const entry of Deno.readDirSync(new URL(folder, root))) {
      const path = `${folder}${entry.name}`.replace(/^\.\//, "");
      if (entry.isDirectory) {
        if (/^\.\/$|^(actors|storage|tests|docs|\.ci)\b/.test(path) && path !== "tests/compat/data") {
          visit(`./${path}/`);
        }
      } else if (
        entry.isFile &&
        /\.(ts|md|json|sh|py|c|xml|service|socket|ya?ml)$|^docs\/|^\.ci\/|^\.gitignore$|^LICENSE$/.test(path)
      ) {
        sources.push(new Source(path, Deno.readTextFileSync(new URL(`./${path}`, root))));
      }
    }
  };
  visit("./");
  return sources.sort((a, b) => a.path < b.path ? -1 : 1);
}
