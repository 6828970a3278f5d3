/** The certificates of a server that speaks TLS, in files named as nbdkit names them. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { UsageError, UserError } from "../../storage/base/errors.ts";

/** How a pool is served with TLS. */
export interface TlsOptions {
  /** Whether clients may speak TLS, or have to. */
  readonly policy: "allow" | "require";
  /** The directory of `ca-cert.pem`, `server-cert.pem` and `server-key.pem`. */
  readonly certificates: string;
  /** Whether clients need a certificate that the authority in `ca-cert.pem` has signed; by default not. Needs `require`. */
  readonly verifyPeer?: boolean;
}

/** What TLS needs: texts in PEM. */
export interface TlsKeys {
  readonly policy: "allow" | "require";
  readonly verifyPeer: boolean;
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

const fileNames = ["ca-cert.pem", "server-cert.pem", "server-key.pem"] as const;
/** For files that are missing or not PEM. */
const makeThem = "Make the files with openssl, as the README shows under TLS.";

/** Keys that can be replaced while they are in use. Each handshake uses the keys of the moment when it begins. */
export class ReplaceableTlsKeys implements TlsKeys {
  readonly policy: "allow" | "require";
  readonly verifyPeer: boolean;
  authority: string;
  certificate: string;
  key: string;

  /** @param keys policy and verification stay as they are here */
  constructor(keys: TlsKeys) {
    this.policy = keys.policy;
    this.verifyPeer = keys.verifyPeer;
    this.authority = keys.authority;
    this.certificate = keys.certificate;
    this.key = keys.key;
  }

  /** For handshakes to come. */
  replace({ authority, certificate, key }: TlsKeys): void {
    this.authority = authority;
    this.certificate = certificate;
    this.key = key;
  }
}

/** Reads and checks the files. Throws {@linkcode UserError}. */
export function readTlsKeys({ policy, certificates, verifyPeer = false }: TlsOptions): TlsKeys {
  if (verifyPeer && policy !== "require") {
    throw new UsageError(
      "Cannot verify clients where TLS is only allowed: those without TLS show no certificate. Require TLS.",
    );
  }
  const texts = fileNames.map((name) => readText(certificates, name));
  const missing = fileNames.filter((_, at) => texts[at] === undefined);
  if (missing.length > 0) {
    const last = missing.length > 1 ? ` and ${missing.at(-1)} are` : " is";
    const others = missing.length > 1 ? missing.slice(0, -1) : missing;
    throw cannotUse(certificates, `${others.join(", ")}${last} missing`, makeThem);
  }
  // Serving without the list would accept certificates that were revoked.
  if (verifyPeer && readText(certificates, "ca-crl.pem") !== undefined) {
    throw cannotUse(
      certificates,
      "revocations, as in ca-crl.pem, are not supported",
      "Remove it, and give all clients that may connect certificates of a new authority.",
    );
  }
  const [authority = "", certificate = "", key = ""] = texts;
  requireCertificate(certificates, "ca-cert.pem", authority);
  requireKey(certificates, requireCertificate(certificates, "server-cert.pem", certificate), key);
  return { policy, verifyPeer, authority, certificate, key };
}

function requireCertificate(directory: string, name: string, text: string): X509Certificate {
  const parsed = attempt(() => new X509Certificate(text));
  if (parsed === undefined) throw cannotUse(directory, `${name} is not a certificate in PEM`, makeThem);
  if (Date.parse(parsed.validTo) < Date.now()) {
    throw cannotUse(directory, `${name} expired at ${parsed.validTo}`, "Put a renewed one there.");
  }
  return parsed;
}

function requireKey(directory: string, certificate: X509Certificate, text: string): void {
  const key = attempt(() => createPrivateKey(text));
  if (key === undefined) {
    throw cannotUse(directory, "server-key.pem is not a private key in PEM, without a passphrase", makeThem);
  }
  if (!certificate.checkPrivateKey(key)) {
    throw cannotUse(
      directory,
      "server-key.pem is not the key of server-cert.pem",
      "Put the two there that belong together.",
    );
  }
}

/** The parsed value. The parser's own message does not help an operator. */
function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    // The caller says what is wrong with the file.
    return undefined;
  }
}

function readText(directory: string, name: string): string | undefined {
  try {
    return Deno.readTextFileSync(`${directory}/${name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (error instanceof Deno.errors.NotCapable) {
      throw new UserError(
        `Cannot use the TLS certificates in ${directory}: no permission to read them. Add --allow-read=${directory}.`,
      );
    }
    const reason = error instanceof Error ? error.message : error;
    throw cannotUse(directory, `${name} cannot be read (${reason})`, "Let the server's user read it.");
  }
}

function cannotUse(directory: string, reason: string, remedy: string): UserError {
  return new UserError(`Cannot use the TLS certificates in ${directory}: ${reason}. ${remedy}`);
}
