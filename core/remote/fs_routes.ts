/** `POST /v1/fs/METHOD`: the path operations as JSON, for scripts and for the `remote` backend. */
import type { CallOptions } from "../fs/contract.ts";
import { FsError, hasCode } from "../fs/error.ts";
import { failure } from "../fs/failure.ts";
import { kindOf } from "../fs/stat.ts";
import type { IndexedFs } from "../indexed/core.ts";
import { requirePath, requireScope } from "./auth.ts";
import { announcedLength, readBody, readJson } from "./body.ts";
import type { Call, ServerContext } from "./context.ts";
import { methodNotAllowed } from "./file_routes.ts";
import { jsonResponse } from "./problem.ts";
import { checkPath, decodeUrlPath, parentOf } from "./url_path.ts";

/** An append may carry so many bytes. */
export const MAX_APPEND = 64 * 1024 * 1024;
/** Longest value of an extended attribute (linux/limits.h). */
const XATTR_SIZE_MAX = 65_536;
const PAGE = 1000;

/** The fields of a JSON body, each checked as it is taken. */
class Params {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #call: Call;

  constructor(values: Readonly<Record<string, unknown>>, call: Call) {
    this.#values = values;
    this.#call = call;
  }
  /** A path the bearer may touch. */
  path(name: string): string {
    const path = checkPath(this.#values[name], name);
    requirePath(this.#call.access, path);
    return path;
  }
  integer(name: string, min: number, max: number): number {
    const value = this.#values[name];
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw new FsError("invalid_input", `${name}: a whole number from ${min} to ${max} is needed`);
    }
    return value;
  }
  optionalInteger(name: string, min: number, max: number): number | undefined {
    return this.#values[name] === undefined || this.#values[name] === null ? undefined : this.integer(name, min, max);
  }
  text(name: string, max: number): string {
    const value = this.#values[name];
    if (typeof value !== "string" || value.length > max || value.includes("\0")) {
      throw new FsError("invalid_input", `${name}: text of at most ${max} characters without NUL is needed`);
    }
    return value;
  }
  optionalText(name: string, max: number): string | undefined {
    return this.#values[name] === undefined || this.#values[name] === null ? undefined : this.text(name, max);
  }
  bytes(name: string, max: number): Uint8Array {
    try {
      const value = Uint8Array.fromBase64(this.text(name, max * 2));
      if (value.length <= max) return value;
    } catch {
      // Said below.
    }
    throw new FsError("invalid_input", `${name}: base64 of at most ${max} bytes is needed`);
  }
  time(name: string): { sec: number; nsec: number } {
    const value = this.#values[name];
    const { sec, nsec } = (value !== null && typeof value === "object" ? value : {}) as Record<string, unknown>;
    if (!Number.isSafeInteger(sec) || !Number.isSafeInteger(nsec) || Number(nsec) < 0 || Number(nsec) > 999_999_999) {
      throw new FsError("invalid_input", `${name}: {"sec": whole seconds since 1970, "nsec": 0..999999999} is needed`);
    }
    return { sec: Number(sec), nsec: Number(nsec) };
  }
}

interface Method {
  readonly scope: "read" | "write";
  run(fs: IndexedFs, p: Params, options: CallOptions): Promise<unknown>;
}

const ID_MAX = 2 ** 32 - 1;

const METHODS: Readonly<Record<string, Method>> = {
  stat: { scope: "read", run: (fs, p, o) => fs.stat(p.path("path"), o) },
  exists: { scope: "read", run: (fs, p, o) => fs.exists(p.path("path"), o) },
  readDir: {
    scope: "read",
    async run(fs, p, o) {
      const limit = p.optionalInteger("limit", 1, PAGE) ?? PAGE;
      const after = p.optionalText("after", 1024);
      const entries: unknown[] = [];
      for await (const entry of fs.readDir(p.path("path"), { ...o, limit, ...(after !== undefined && { after }) })) {
        entries.push(entry);
      }
      return entries;
    },
  },
  readLink: { scope: "read", run: (fs, p, o) => fs.readLink(p.path("path"), o) },
  getXattr: {
    scope: "read",
    run: async (fs, p, o) => (await fs.getXattr(p.path("path"), p.text("name", 255), o)).toBase64(),
  },
  listXattr: { scope: "read", run: (fs, p, o) => fs.listXattr(p.path("path"), o) },
  statFs: { scope: "read", run: (fs) => fs.statFs() },
  /** Would a streamed write of this file begin? Said before its bytes are sent. */
  mayWrite: {
    scope: "write",
    async run(fs, p, o) {
      const path = p.path("path");
      const found = await fs.stat(path, o).catch((error) => {
        if (hasCode(error, "not_found")) return null;
        throw error;
      });
      if (found !== null) {
        if (kindOf(found.mode) === "directory") throw failure("is_a_directory", "write", path);
        if (p.optionalInteger("exclusive", 0, 1) === 1) throw failure("already_exists", "write", path);
        return null;
      }
      const parent = await fs.stat(parentOf(path), o);
      if (kindOf(parent.mode) !== "directory") throw failure("not_a_directory", "write", path);
      return null;
    },
  },
  createDir: {
    scope: "write",
    run: (fs, p, o) => fs.createDir(p.path("path"), { ...o, ...mode(p) }),
  },
  createDirAll: { scope: "write", run: (fs, p, o) => fs.createDirAll(p.path("path"), { ...o, ...mode(p) }) },
  removeDir: { scope: "write", run: (fs, p, o) => fs.removeDir(p.path("path"), o) },
  removeDirAll: { scope: "write", run: (fs, p, o) => fs.removeDirAll(p.path("path"), o) },
  removeFile: { scope: "write", run: (fs, p, o) => fs.removeFile(p.path("path"), o) },
  rename: { scope: "write", run: (fs, p, o) => fs.rename(p.path("from"), p.path("to"), o) },
  copy: { scope: "write", run: (fs, p, o) => fs.copy(p.path("from"), p.path("to"), o) },
  truncate: {
    scope: "write",
    run: (fs, p, o) => fs.truncate(p.path("path"), p.integer("size", 0, Number.MAX_SAFE_INTEGER), o),
  },
  symlink: { scope: "write", run: (fs, p, o) => fs.symlink(p.text("target", 4096), p.path("path"), o) },
  hardLink: { scope: "write", run: (fs, p, o) => fs.hardLink(p.path("existing"), p.path("path"), o) },
  chmod: { scope: "write", run: (fs, p, o) => fs.chmod(p.path("path"), p.integer("mode", 0, 0o7777), o) },
  chown: {
    scope: "write",
    run: (fs, p, o) => fs.chown(p.path("path"), p.integer("uid", 0, ID_MAX), p.integer("gid", 0, ID_MAX), o),
  },
  utimes: { scope: "write", run: (fs, p, o) => fs.utimes(p.path("path"), p.time("atime"), p.time("mtime"), o) },
  setXattr: {
    scope: "write",
    run(fs, p, o) {
      const how = p.optionalText("mode", 16);
      if (how !== undefined && how !== "create" && how !== "replace") {
        throw new FsError("invalid_input", "mode: create or replace");
      }
      const options: Parameters<IndexedFs["setXattr"]>[3] = how === undefined ? o : { ...o, mode: how };
      return fs.setXattr(p.path("path"), p.text("name", 255), p.bytes("value", XATTR_SIZE_MAX), options);
    },
  },
  removeXattr: { scope: "write", run: (fs, p, o) => fs.removeXattr(p.path("path"), p.text("name", 255), o) },
  sync: { scope: "write", run: (fs, p, o) => fs.sync(p.path("path"), o) },
  syncAll: { scope: "write", run: (fs, _p, o) => fs.syncAll(o) },
};

function mode(p: Params): { mode?: number } {
  const bits = p.optionalInteger("mode", 0, 0o7777);
  return bits === undefined ? {} : { mode: bits };
}

export const isReadMethod = (rest: string): boolean => {
  const name = rest.slice(1);
  return name === "mayWrite" || Object.hasOwn(METHODS, name) && METHODS[name]?.scope === "read";
};

export async function fsMethods(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "POST") return methodNotAllowed("POST");
  const name = call.rest.slice(1);
  const options = { signal: call.signal };
  if (name.startsWith("append/")) {
    requireScope(call.access, "write");
    const { path } = decodeUrlPath(name.slice("append".length));
    requirePath(call.access, path);
    // Only a whole body is appended: a cut one changes nothing.
    announcedLength(call.request);
    const bytes = await readBody(call.request, MAX_APPEND);
    return jsonResponse({ result: await context.core.fs.append(path, bytes, options) });
  }
  const found = Object.hasOwn(METHODS, name) ? METHODS[name] : undefined;
  if (found === undefined) {
    throw new FsError(
      "not_supported",
      `there is no operation ${JSON.stringify(name.slice(0, 40))}; there are ${
        Object.keys(METHODS).join(", ")
      }, append/PATH`,
    );
  }
  requireScope(call.access, found.scope);
  const params = new Params(await readJson(call.request), call);
  const result = await found.run(context.core.fs, params, options);
  return jsonResponse({ result: result ?? null });
}
