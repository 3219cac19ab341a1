/** `/v1/files`, `/v1/meta` and `/v1/ls`: the tree over plain HTTP. */
import { FsError, hasCode, toFsError } from "../fs/error.ts";
import { failure } from "../fs/failure.ts";
import type { WriteOptions } from "../fs/contract.ts";
import { decodeName, encodeName } from "../fs/names.ts";
import { kindOf, type Stat } from "../fs/stat.ts";
import { requirePath, requireScope } from "./auth.ts";
import { announcedLength, cutBody } from "./body.ts";
import { contentAnswer } from "./content_answer.ts";
import { parseRange } from "./byte_range.ts";
import { checkWriteConditions, notModified, rangeAllowed } from "./conditions.ts";
import type { Call, ServerContext } from "./context.ts";
import { follow, type Followed } from "./follow.ts";
import { mediaType } from "./media_type.ts";
import { etagOf, nodeJson } from "./node_json.ts";
import { jsonResponse, PLAIN_HEADERS, problemResponse } from "./problem.ts";
import { decodeUrlPath, parentOf } from "./url_path.ts";

const LS_LIMIT = 1000;

/** The path of the call, in the bearer's subtree, with its links followed unless the client asks for the link itself. */
async function target(context: ServerContext, call: Call, path: string): Promise<Followed> {
  requirePath(call.access, path);
  if (call.request.headers.get("x-anyfs-nofollow") !== null || call.query.get("follow") === "false") {
    try {
      return { path, stat: await context.core.fs.stat(path, { signal: call.signal }) };
    } catch (error) {
      if (hasCode(error, "not_found")) return { path, stat: null };
      throw error;
    }
  }
  const followed = await follow(context.core.fs, path, call.signal);
  requirePath(call.access, followed.path);
  return followed;
}

async function existing(context: ServerContext, call: Call, path: string): Promise<{ path: string; stat: Stat }> {
  const { path: real, stat } = await target(context, call, path);
  if (stat === null) throw new FsError("not_found", `${path}: no such file or directory`, { operation: "stat", path });
  return { path: real, stat };
}

export async function files(context: ServerContext, call: Call): Promise<Response> {
  const { path, trailingSlash } = decodeUrlPath(call.rest);
  switch (call.method) {
    case "GET":
    case "HEAD":
      requireScope(call.access, "read");
      return await readFile(context, call, path);
    case "PUT":
      requireScope(call.access, "write");
      if (path === "/" || trailingSlash) {
        throw new FsError(
          "is_a_directory",
          `${path}: a path with "/" at its end names a directory; make one with POST /v1/fs/createDirAll`,
          { operation: "write", path },
        );
      }
      return await writeFile(context, call, path);
    case "DELETE":
      requireScope(call.access, "write");
      return await remove(context, call, path);
    default:
      return methodNotAllowed("GET, HEAD, PUT, DELETE");
  }
}

export function methodNotAllowed(allow: string): Response {
  const error = new FsError("not_supported", `this address takes ${allow}`);
  return problemResponse(error, undefined, { allow }, 405);
}

async function readFile(context: ServerContext, call: Call, asked: string): Promise<Response> {
  const { request, signal } = call;
  const { path, stat } = await existing(context, call, asked);
  if (kindOf(stat.mode) === "directory") {
    throw new FsError("is_a_directory", `${asked} is a directory; list it with GET /v1/ls${asked}`, {
      operation: "read",
      path: asked,
    });
  }
  if (kindOf(stat.mode) === "symlink") throw failure("too_many_links", "read", asked);
  if (kindOf(stat.mode) !== "file") {
    throw new FsError("invalid_input", `${asked} is not a regular file`, { operation: "read", path: asked });
  }
  const headers: Record<string, string> = {
    ...PLAIN_HEADERS,
    "content-type": mediaType(path),
    "accept-ranges": "bytes",
    etag: etagOf(stat),
    "last-modified": new Date(stat.mtimeSec * 1000).toUTCString(),
    "x-anyfs-version": String(stat.version),
    "x-content-type-options": "nosniff",
  };
  if (notModified(request.headers, stat, path)) return new Response(null, { status: 304, headers });
  const range = rangeAllowed(request.headers, stat)
    ? parseRange(request.headers.get("range"), stat.size)
    : { kind: "whole" } as const;
  if (range.kind === "unsatisfiable") {
    const error = new FsError("invalid_input", `${asked} has ${stat.size} bytes: the range lies behind its end`, {
      path: asked,
      limit: stat.size,
    });
    const about = { ...headers, "content-range": `bytes */${stat.size}`, "content-type": "application/problem+json" };
    return problemResponse(error, asked, about, 416);
  }
  const offset = range.kind === "part" ? range.offset : 0;
  const length = range.kind === "part" ? range.length : stat.size;
  if (range.kind === "part") headers["content-range"] = `bytes ${offset}-${offset + length - 1}/${stat.size}`;
  const status = range.kind === "part" ? 206 : 200;
  headers["content-length"] = String(length);
  if (call.method === "HEAD") return new Response(null, { status, headers });
  if (length === 0 || stat.content === null) return new Response(new Uint8Array(length), { status, headers });
  // By identity: a write meanwhile does not change what this answer is made of.
  return await contentAnswer(context, { hash: stat.content, offset, length, signal }, { status, headers });
}

function octal(text: string | null, name: string): number | undefined {
  if (text === null) return undefined;
  if (!/^[0-7]{1,4}$/.test(text)) {
    throw new FsError("invalid_input", `${name}: ${text} is not an octal mode such as 0644`);
  }
  return parseInt(text, 8);
}
function naturalHeader(text: string | null, name: string): number | undefined {
  if (text === null) return undefined;
  if (!/^\d{1,15}$/.test(text)) throw new FsError("invalid_input", `${name}: ${text} is not a whole number`);
  return Number(text);
}
/** `seconds` or `seconds.fraction` since 1970. */
function timeHeader(text: string | null): { sec: number; nsec: number } | undefined {
  if (text === null) return undefined;
  const match = /^(-?\d{1,14})(?:\.(\d{1,9}))?$/.exec(text);
  if (match === null) {
    throw new FsError("invalid_input", `X-Anyfs-Mtime: ${text} is not seconds since 1970 such as 1700000000.5`);
  }
  return { sec: Number(match[1]), nsec: Number((match[2] ?? "").padEnd(9, "0")) };
}

async function writeFile(context: ServerContext, call: Call, asked: string): Promise<Response> {
  const { request, signal } = call;
  const { fs } = context.core;
  const { headers } = request;
  const mode = octal(headers.get("x-anyfs-mode"), "X-Anyfs-Mode");
  const createMode = mode ?? octal(headers.get("x-anyfs-create-mode"), "X-Anyfs-Create-Mode");
  const mtime = timeHeader(headers.get("x-anyfs-mtime"));
  const version = naturalHeader(headers.get("x-anyfs-if-version"), "X-Anyfs-If-Version");
  const exclusive = headers.get("x-anyfs-exclusive") !== null;
  const announced = announcedLength(request);
  let found: Followed;
  try {
    found = await target(context, call, asked);
  } catch (error) {
    if (!hasCode(error, "not_found") || headers.get("x-anyfs-parents") === "no") throw error;
    found = { path: asked, stat: null };
  }
  const { path, stat } = found;
  if (stat !== null && kindOf(stat.mode) === "directory") {
    throw new FsError("is_a_directory", `${asked} is a directory; a file can't take its place`, {
      operation: "write",
      path: asked,
    });
  }
  checkWriteConditions(headers, stat, path);
  if (stat === null && headers.get("x-anyfs-parents") !== "no" && parentOf(path) !== "/") {
    await fs.createDirAll(parentOf(path), { signal });
  }
  const conditional = headers.has("if-match") || headers.has("if-none-match");
  const ifVersion = version ?? (conditional ? stat?.version ?? 0 : undefined);
  const options: WriteOptions = {
    signal,
    ...(createMode !== undefined && { mode: createMode }),
    ...(ifVersion !== undefined && { ifVersion }),
    ...(exclusive && { exclusive }),
  };
  const writer = await fs.openWrite(path, options);
  writer.done.catch(() => {});
  const out = writer.writable.getWriter();
  let received = 0;
  let written: Stat;
  try {
    try {
      for await (const part of request.body ?? []) {
        received += part.length;
        await out.write(part);
      }
    } catch (error) {
      const cause = toFsError(error);
      throw cause.code === "internal" || signal.aborted ? cutBody(announced, received) : cause;
    }
    if (announced !== null && received !== announced) throw cutBody(announced, received);
    await out.close();
    written = await writer.done;
  } catch (error) {
    await out.abort(error).catch(() => {});
    // What the file itself reports (no space, a conflict) says more than a broken pipe.
    throw await writer.done.then(() => error, (own) => toFsError(own).code === "internal" ? error : own);
  }
  if (mode !== undefined && stat !== null && (written.mode & 0o7777) !== mode) await fs.chmod(path, mode, { signal });
  if (mtime !== undefined) await fs.utimes(path, mtime, mtime, { signal });
  const uid = naturalHeader(headers.get("x-anyfs-uid"), "X-Anyfs-Uid");
  const gid = naturalHeader(headers.get("x-anyfs-gid"), "X-Anyfs-Gid");
  if (uid !== undefined && gid !== undefined) await fs.chown(path, uid, gid, { signal });
  const now = mode !== undefined || mtime !== undefined || uid !== undefined
    ? await fs.stat(path, { signal })
    : written;
  return jsonResponse(call.query.get("as") === "stat" ? now : nodeJson(path, now), stat === null ? 201 : 200, {
    etag: etagOf(now),
    "x-anyfs-version": String(now.version),
  });
}

async function remove(context: ServerContext, call: Call, path: string): Promise<Response> {
  const { signal, query } = call;
  const { fs } = context.core;
  requirePath(call.access, path);
  if (path === "/") throw new FsError("invalid_input", "the root of the tree can't be removed", { path });
  const stat = await fs.stat(path, { signal });
  checkWriteConditions(call.request.headers, stat, path);
  if (kindOf(stat.mode) !== "directory") await fs.removeFile(path, { signal });
  else if (query.get("recursive") === "true") await fs.removeDirAll(path, { signal });
  else await fs.removeDir(path, { signal });
  return new Response(null, { status: 204, headers: PLAIN_HEADERS });
}

export async function meta(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET" && call.method !== "HEAD") return methodNotAllowed("GET, HEAD");
  requireScope(call.access, "read");
  const { path } = decodeUrlPath(call.rest);
  requirePath(call.access, path);
  const { fs } = context.core;
  const wantsTarget = call.query.get("follow") === "true";
  const { path: real, stat } = wantsTarget
    ? await existing(context, call, path)
    : { path, stat: await fs.stat(path, { signal: call.signal }) };
  const link = kindOf(stat.mode) === "symlink" ? await fs.readLink(real, { signal: call.signal }) : undefined;
  const response = jsonResponse(nodeJson(real, stat, link), 200, { etag: etagOf(stat) });
  return call.method === "HEAD" ? new Response(null, { headers: response.headers }) : response;
}

function encodeCursor(name: string): string {
  return encodeName(name).toBase64({ alphabet: "base64url", omitPadding: true });
}
function decodeCursor(cursor: string): string {
  try {
    return decodeName(Uint8Array.fromBase64(cursor, { alphabet: "base64url" }));
  } catch {
    throw new FsError("invalid_input", "cursor: give back what an earlier answer had as its cursor");
  }
}

export async function ls(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET") return methodNotAllowed("GET");
  requireScope(call.access, "read");
  const { path: asked } = decodeUrlPath(call.rest);
  const { path, stat } = await existing(context, call, asked);
  if (kindOf(stat.mode) !== "directory") {
    throw new FsError("not_a_directory", `${asked} is not a directory`, { operation: "list", path: asked });
  }
  const limitText = call.query.get("limit");
  const limit = limitText === null ? LS_LIMIT : Number(limitText);
  if (!Number.isInteger(limit) || limit < 1 || limit > 10_000) {
    throw new FsError("invalid_input", `limit: ${limitText} is not a whole number from 1 to 10000`);
  }
  const cursor = call.query.get("cursor");
  const entries: ReturnType<typeof nodeJson>[] = [];
  let last: string | null = null;
  const options = { limit, signal: call.signal, ...(cursor !== null && { after: decodeCursor(cursor) }) };
  for await (const entry of context.core.fs.readDir(path, options)) {
    last = entry.name;
    entries.push(nodeJson(path === "/" ? `/${entry.name}` : `${path}/${entry.name}`, entry.stat));
  }
  return jsonResponse({
    path,
    entries,
    cursor: last !== null && entries.length === limit ? encodeCursor(last) : null,
  });
}
