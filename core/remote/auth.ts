/** Who may: bearer tokens, their scopes and subtrees. Tokens are kept as SHA-256 only. */
import { FsError } from "../fs/error.ts";
import type { Index, TokenInfo } from "../index/index.ts";
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import { hex, sha256 } from "../store/hash.ts";

export type Scope = TokenInfo["scope"];

/** What a request may do. */
export interface Access {
  /** The token's id, or `open` where none is asked for. */
  readonly id: string;
  readonly scope: Scope;
  /** The subtree it may touch, `/` for all. */
  readonly path: string;
  /** Milliseconds since 1970. */
  readonly expires: number | null;
}

const RANK: Record<Scope, number> = { read: 0, write: 1, admin: 2 };
const OPEN: Access = { id: "open", scope: "admin", path: "/", expires: null };
/** A token begins with this, so that it is recognised where it should not be. */
const PREFIX = "anyfs_";
/** How long what was learnt about a token is believed. Revoking through this server takes effect at once. */
const BELIEVE_MS = 2_000;

/** Is this address one that only this machine can reach? */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "").toLowerCase();
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host) || host === "::ffff:127.0.0.1";
}

export interface NewToken {
  readonly secret: string;
  readonly info: TokenInfo;
}

/** Makes a token; the secret is told once and not kept. `expires`: milliseconds since 1970. Durable when it resolves. */
export async function createToken(
  index: Pick<Index, "addToken">,
  random: Random,
  clock: Clock,
  options: { readonly scope: Scope; readonly path?: string; readonly expires?: number | null },
): Promise<NewToken> {
  const secret = PREFIX + random.bytes(32).toBase64({ alphabet: "base64url", omitPadding: true });
  const info: TokenInfo = {
    id: hex(random.bytes(6)),
    scope: options.scope,
    path: options.path ?? "/",
    created: Math.floor(clock.now()),
    expires: options.expires ?? null,
  };
  const written = await index.addToken(tokenHash(secret), info);
  await written.durable;
  return { secret, info };
}

function tokenHash(secret: string): Uint8Array {
  return sha256(new TextEncoder().encode(secret));
}

/** Throws access_denied unless the access has the scope. */
export function requireScope(access: Access, scope: Scope): void {
  if (RANK[access.scope] >= RANK[scope]) return;
  throw new FsError("permission_denied", `this token may ${access.scope} only; ${scope} is needed`, {
    operation: "authorize",
  });
}
/** Throws access_denied unless the path is in the access's subtree. */
export function requirePath(access: Access, path: string): void {
  if (access.path === "/" || path === access.path || path.startsWith(`${access.path}/`)) return;
  throw new FsError("permission_denied", `this token is for ${access.path} only`, { operation: "authorize", path });
}

export class Auth {
  readonly #index: Pick<Index, "tokenByHash" | "tokens">;
  readonly #clock: Clock;
  readonly #mode: "tokens" | "open-without-tokens" | "open";
  readonly #known = new Map<string, { info: TokenInfo | null; until: number }>();
  #isOpen: { open: boolean; until: number } = { open: false, until: -Infinity };

  /**
   * `tokens`: every request needs one. `open-without-tokens`: only once there are some (loopback). `open`: never.
   */
  constructor(
    index: Pick<Index, "tokenByHash" | "tokens">,
    clock: Clock,
    mode: "tokens" | "open-without-tokens" | "open",
  ) {
    this.#index = index;
    this.#clock = clock;
    this.#mode = mode;
  }

  /** Tokens were made or revoked: look again. */
  changed(): void {
    this.#known.clear();
    this.#isOpen = { open: false, until: -Infinity };
  }

  async #open(): Promise<boolean> {
    if (this.#mode === "open") return true;
    if (this.#mode === "tokens") return false;
    const now = this.#clock.monotonic();
    if (this.#isOpen.until < now) {
      this.#isOpen = { open: (await this.#index.tokens()).length === 0, until: now + BELIEVE_MS };
    }
    return this.#isOpen.open;
  }

  /** What the bearer of this `Authorization` header may do. Throws access_denied. */
  async authenticate(header: string | null): Promise<Access> {
    const secret = header === null ? null : /^Bearer +([!-~]{1,512})$/i.exec(header.trim())?.[1] ?? "";
    if (secret === null || secret === "") {
      if (secret === null && await this.#open()) return OPEN;
      throw denied(
        'this server asks for a token; make one on the server with "anyfs token create" and send it as a bearer token',
      );
    }
    // The lookup is by the token's hash: how long it takes says nothing about the token.
    const hash = tokenHash(secret);
    const key = hex(hash);
    const now = this.#clock.monotonic();
    let known = this.#known.get(key);
    if (known === undefined || known.until < now) {
      if (this.#known.size > 1000) this.#known.clear();
      known = { info: await this.#index.tokenByHash(hash), until: now + BELIEVE_MS };
      this.#known.set(key, known);
    }
    if (known.info === null) {
      if (this.#mode === "open" || await this.#open()) return OPEN;
      throw denied('the token is wrong or revoked; make one on the server with "anyfs token create"');
    }
    if (known.info.expires !== null && known.info.expires <= this.#clock.now()) {
      throw denied('the token has expired; make a new one on the server with "anyfs token create"');
    }
    const { id, scope, path, expires } = known.info;
    return { id, scope, path, expires };
  }
}

function denied(message: string): FsError {
  return new FsError("access_denied", message, { operation: "authenticate" });
}
