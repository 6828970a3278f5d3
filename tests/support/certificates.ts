/** Certificates for tests of TLS, made by openssl with the lines that the README gives. */
import { hasProgram, requiredProgram } from "./programs.ts";
import { runToEnd } from "./server.ts";

/** Whether tests of TLS run. */
export function hasOpenssl(): boolean {
  return hasProgram("openssl");
}

const newPair = [
  ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650".split(" "),
];
const localhost = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];

/** Directories of certificates, named for what has them. */
export interface Certificates {
  /** ca-cert.pem, server-cert.pem and server-key.pem. */
  readonly server: string;
  /** ca-cert.pem, client-cert.pem and client-key.pem, for a client named alice. */
  readonly client: string;
  /** As for the client, but its certificate is signed by another authority of the same name. */
  readonly foreign: string;
  /** ca-cert.pem alone. */
  readonly uncertified: string;
}

/** Makes all of them below `folder`. */
export async function makeCertificates(folder: string): Promise<Certificates> {
  const paths = {
    server: `${folder}/server`,
    client: `${folder}/client`,
    foreign: `${folder}/foreign`,
    uncertified: `${folder}/uncertified`,
  };
  for (const path of [...Object.values(paths), `${folder}/other`]) Deno.mkdirSync(path);
  for (const path of [paths.server, `${folder}/other`]) {
    await openssl(...newPair, "-subj", "/CN=our CA", ...files(path, "ca"));
  }
  await signedPair(paths.server, "localhost", files(paths.server, "server"), localhost);
  await signedPair(paths.server, "alice", files(paths.client, "client"));
  await signedPair(`${folder}/other`, "alice", files(paths.foreign, "client"));
  for (const path of [paths.client, paths.foreign, paths.uncertified]) {
    Deno.copyFileSync(`${paths.server}/ca-cert.pem`, `${path}/ca-cert.pem`);
  }
  return paths;
}

function files(directory: string, name: string): string[] {
  return ["-keyout", `${directory}/${name}-key.pem`, "-out", `${directory}/${name}-cert.pem`];
}

/** A certificate of the authority whose files are in the directory. */
async function signedPair(
  authority: string,
  name: string,
  out: readonly string[],
  more: readonly string[] = [],
): Promise<void> {
  const signed = ["-CA", `${authority}/ca-cert.pem`, "-CAkey", `${authority}/ca-key.pem`];
  const leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
  await openssl(...newPair, ...signed, ...leaf, "-subj", `/CN=${name}`, ...more, ...out);
}

async function openssl(...args: string[]): Promise<void> {
  await runToEnd(requiredProgram("openssl"), args);
}
