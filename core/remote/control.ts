/** The control socket: JSON-RPC 2.0 (jsonrpc.org) on `<state_dir>/control.sock`, a JSON value a line or one HTTP POST. */
import { FsError, toFsError } from "../fs/error.ts";
import { listenLocal, type LocalConnection } from "../platform/sockets.ts";
import * as admin from "./admin.ts";
import type { ServerContext } from "./context.ts";

/** A request may have so many bytes. */
const MAX_REQUEST = 1024 * 1024;

type Params = Readonly<Record<string, unknown>>;
type Method = (context: ServerContext, params: Params) => Promise<unknown>;

function natural(value: unknown, name: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new FsError("invalid_input", `${name}: a whole number of 0 or more is needed`);
  }
  return value;
}

const METHODS: Readonly<Record<string, Method>> = {
  status: (context) => admin.status(context),
  "wal.list": (context, p) =>
    admin.walList(context, natural(p["cursor"], "cursor") ?? 0, Math.min(natural(p["limit"], "limit") ?? 1000, 10_000)),
  "wal.retry": (context, p) => admin.walRetry(context, natural(p["id"], "id") ?? null),
  "wal.flush": (context, p) => admin.flush(context, natural(p["timeout_ms"], "timeout_ms")),
  "evict.run": (context, p) =>
    admin.evict(context, {
      tier: p["tier"] === undefined ? undefined : String(p["tier"]),
      to: natural(p["to"], "to"),
      dryRun: p["dry_run"] === true,
    }),
  "scrub.run": (context, p) => admin.scrub(context, { repair: p["repair"] === true, deep: p["deep"] === true }),
  // The server keeps no cache of other stores yet: these are its connections and its memory of requests.
  "cache.stats": (context) => Promise.resolve({ origins: [], clients: context.connectedDevices().length }),
  devices: (context) => admin.devices(context),
  "token.create": (context, p) =>
    admin.makeToken(admin.tokenKeeper(context), {
      scope: p["scope"],
      path: p["path"],
      expiresInMs: p["expires_in_ms"],
    }),
  "token.list": (context) => admin.tokens(admin.tokenKeeper(context)),
  "token.revoke": (context, p) => admin.revokeToken(admin.tokenKeeper(context), p["id"]),
};
/** Of the contract, and not there yet. */
const LATER: ReadonlySet<string> = new Set(["cache.clear", "search", "origin.list", "origin.rescan"]);

/** Listens until the result is called. */
export function serveControl(context: ServerContext, path: string): () => void {
  const open = new Set<LocalConnection>();
  const stop = listenLocal(path, (connection) => {
    open.add(connection);
    void converse(context, connection).catch(() => {}).finally(() => {
      open.delete(connection);
      connection.close();
    });
  });
  return () => {
    stop();
    for (const connection of open) connection.close();
  };
}

async function converse(context: ServerContext, connection: LocalConnection): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of connection.readable) {
    text += decoder.decode(bytes, { stream: true });
    if (text.length > MAX_REQUEST) return;
    if (/^(POST|GET|PUT) /.test(text)) {
      const answer = await http(context, text);
      if (answer === null) continue;
      await connection.write(new TextEncoder().encode(answer));
      return;
    }
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end).trim();
      text = text.slice(end + 1);
      if (line !== "") await reply(context, connection, line);
    }
    // A client that sends one value without a newline waits for its answer all the same.
    const rest = text.trim();
    if (rest !== "" && isWhole(rest)) {
      text = "";
      await reply(context, connection, rest);
    }
  }
  if (text.trim() !== "") await reply(context, connection, text.trim());
}

function isWhole(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

async function reply(context: ServerContext, connection: LocalConnection, text: string): Promise<void> {
  const answer = await answerTo(context, text);
  if (answer !== null) await connection.write(new TextEncoder().encode(`${JSON.stringify(answer)}\n`));
}

/** `curl --unix-socket`: one POST a connection. Null: its body is not all there yet. */
async function http(context: ServerContext, text: string): Promise<string | null> {
  const at = text.indexOf("\r\n\r\n");
  if (at < 0) return null;
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text.slice(0, at))?.[1] ?? 0);
  const body = text.slice(at + 4);
  if (new TextEncoder().encode(body).length < length) return null;
  const answer = JSON.stringify(await answerTo(context, body) ?? null);
  return `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${
    new TextEncoder().encode(answer).length
  }\r\nconnection: close\r\n\r\n${answer}`;
}

interface RpcError {
  readonly code: number;
  readonly message: string;
  readonly data?: unknown;
}
const failed = (id: unknown, error: RpcError) => ({ jsonrpc: "2.0", id, error });

/** The answer to one request or a batch; null for notifications. */
export async function answerTo(context: ServerContext, text: string): Promise<unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return failed(null, { code: -32700, message: "this is not JSON" });
  }
  if (!Array.isArray(value)) return await one(context, value);
  if (value.length === 0) return failed(null, { code: -32600, message: "an empty batch" });
  const answers = [];
  for (const each of value) {
    const answer = await one(context, each);
    if (answer !== null) answers.push(answer);
  }
  return answers.length === 0 ? null : answers;
}

async function one(context: ServerContext, value: unknown): Promise<unknown> {
  const request = (value !== null && typeof value === "object" ? value : {}) as Record<string, unknown>;
  const { method, params = {} } = request;
  const id = request["id"] ?? null;
  const silent = !Object.hasOwn(request, "id");
  if (request["jsonrpc"] !== "2.0" || typeof method !== "string" || params === null || typeof params !== "object") {
    return failed(id, { code: -32600, message: "not a JSON-RPC 2.0 request" });
  }
  const found = Object.hasOwn(METHODS, method) ? METHODS[method] : undefined;
  if (found === undefined) {
    const message = LATER.has(method) ? `${method} is not built yet` : `there is no method ${JSON.stringify(method)}`;
    return silent ? null : failed(id, { code: -32601, message });
  }
  try {
    const result = await found(context, params as Params);
    return silent ? null : { jsonrpc: "2.0", id, result };
  } catch (error) {
    const { code, message, details } = toFsError(error);
    const number = code === "invalid_input" ? -32602 : -32000;
    return silent ? null : failed(id, {
      code: number,
      message,
      data: { code, ...(details.path !== undefined && { path: details.path }) },
    });
  }
}
