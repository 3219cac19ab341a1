/** The configuration: one TOML file, checked and typed, with the environment and the defaults applied. */
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { FsError, hasCode } from "../fs/error.ts";
import { info, readText } from "../platform/files.ts";
import {
  cacheFolder,
  configFileCandidates,
  configFileOfEnvironment,
  type Environment,
  resolvePath,
  stateFolder,
} from "./places.ts";
import { fileSchema, type FileValues, keysAt } from "./schema.ts";
import { nearest } from "./similar.ts";
import { type KeyPath, TomlLines } from "./toml_lines.ts";

/** How a store is reached, apart from secrets: those are named by variable or file. Paths are absolute. */
export type StoreConfig =
  | { readonly type: "local"; readonly path: string }
  | { readonly type: "memory" }
  | {
    readonly type: "s3";
    readonly bucket: string;
    readonly region?: string;
    /** Empty, or ends with `/`. */
    readonly prefix: string;
    readonly endpoint?: string;
    readonly pathStyle: boolean;
    readonly profile?: string;
  }
  | {
    readonly type: "sftp";
    readonly host: string;
    readonly port: number;
    readonly user?: string;
    readonly path: string;
    readonly secret: SecretSource;
    readonly keyFile?: string;
    readonly knownHosts?: string;
  }
  | {
    readonly type: "webdav";
    readonly url: string;
    readonly user?: string;
    readonly path: string;
    readonly secret: SecretSource;
  }
  | { readonly type: "rclone"; readonly remote: string; readonly configFile?: string }
  | { readonly type: "plugin"; readonly module: string; readonly options: Readonly<Record<string, unknown>> };

/** Where a password is found when it is needed; neither: there is none. */
export interface SecretSource {
  readonly env?: string;
  readonly file?: string;
}

/** Bytes; null: never evicted by size. */
export interface Watermarks {
  readonly high: number;
  readonly low: number;
}

export interface TierConfig {
  readonly store: StoreConfig;
  readonly watermarks: Watermarks | null;
}

export type ConflictPolicy = FileValues["sync"]["conflict"];
export type LogLevel = FileValues["daemon"]["log_level"];

export interface Origin {
  readonly id: string;
  readonly priority: number;
  readonly store: StoreConfig;
}

/** Sizes in bytes, times in milliseconds, rates in bytes a second; null: no limit, or not wanted. Paths are absolute. */
export interface Config {
  /** The file it came from; null: none, all defaults. */
  readonly file: string | null;
  readonly daemon: {
    readonly listen: { readonly hostname: string; readonly port: number };
    readonly stateDir: string;
    readonly mountPath: string | null;
    readonly lockLeaseMs: number;
    readonly tokenFile: string | null;
    readonly tls: { readonly certFile: string; readonly keyFile: string } | null;
    readonly insecure: boolean;
    readonly logLevel: LogLevel;
    readonly logFormat: "text" | "json";
  };
  readonly tiers: {
    readonly local: { readonly path: string; readonly watermarks: Watermarks | null };
    readonly nas: TierConfig | null;
    readonly s3: { readonly store: StoreConfig } | null;
  };
  readonly upload: {
    readonly flushBytes: number;
    readonly flushIntervalMs: number;
    readonly transfers: number;
    readonly bandwidth: number | null;
  };
  readonly eviction: {
    readonly intervalMs: number;
    readonly recencyWeight: number;
    readonly frequencyWeight: number;
  };
  readonly origins: readonly Origin[];
  readonly cache: {
    readonly dir: string;
    readonly size: number;
    readonly metadataTtlMs: number;
    readonly prefetch: boolean;
    readonly passthrough: boolean;
  };
  readonly sync: { readonly intervalMs: number; readonly conflict: ConflictPolicy };
  readonly limits: {
    readonly maxTotalSize: number | null;
    readonly maxFileSize: number | null;
    readonly maxNodes: number | null;
    readonly maxEntriesPerDirectory: number | null;
    readonly maxDepth: number | null;
    readonly requestsPerSecond: number | null;
  };
  readonly snapshots: { readonly keepMs: number };
  readonly library: { readonly template: string };
}

/** Something wrong with the file. */
export interface Problem {
  /** From 1. */
  readonly line: number;
  /** `tiers.s3.bucket`; empty for the file as a whole. */
  readonly key: string;
  /** The cause and the fix. */
  readonly message: string;
}

/** `file:line: key: message`, as `config check` prints it. */
export function printProblem(file: string, { line, key, message }: Problem): string {
  return `${file}:${line}: ${key === "" ? "" : `${key}: `}${message}`;
}

/** Keys that would hold a secret, and what to write instead. */
const SECRET_KEYS: { readonly [key: string]: string } = {
  password: 'name an environment variable with password_env = "...", or a file with password_file = "..."',
  passphrase: 'name an environment variable with password_env = "..."',
  token: "put it into a file readable by its owner only and name that with token_file",
  access_key: "use the standard AWS chain: environment, ~/.aws, profile",
  access_key_id: "use the standard AWS chain: environment, ~/.aws, profile",
  aws_access_key_id: "use the standard AWS chain: environment, ~/.aws, profile",
  secret: "use the standard AWS chain, or password_env",
  secret_key: "use the standard AWS chain: environment, ~/.aws, profile",
  secret_access_key: "use the standard AWS chain: environment, ~/.aws, profile",
  aws_secret_access_key: "use the standard AWS chain: environment, ~/.aws, profile",
};

function keyName(path: KeyPath): string {
  return path.reduce<string>(
    (name, part) => typeof part === "number" ? `${name}[${part}]` : name === "" ? part : `${name}.${part}`,
    "",
  );
}

type Say = (path: KeyPath, message: string) => void;

/** valibot's issues in our words. */
function explain(issue: v.BaseIssue<unknown>, path: KeyPath, say: Say): void {
  const name = String(path.at(-1) ?? "");
  if (issue.type === "strict_object" && issue.expected === "never") {
    const instead = SECRET_KEYS[name];
    if (instead !== undefined) {
      say(path, `secrets never stand in this file; ${instead}`);
      return;
    }
    const known = keysAt(path.slice(0, -1));
    const near = nearest(name, known);
    say(path, near === null ? `unknown key; known here: ${known.join(", ")}` : `unknown key; did you mean "${near}"?`);
  } else if (issue.type === "strict_object" && issue.received === "undefined") {
    say(path.slice(0, -1), `${name} is missing; add ${name} = ...`);
  } else say(path, issue.message);
}

type StoreValues = {
  readonly [K in Exclude<keyof FileValues["origins"][number], "id" | "type" | "priority" | "options" | "module">]?:
    | FileValues["origins"][number][K]
    | undefined;
};

/** Which keys belong to which kind of store, and which of them it can't do without. */
const STORES: {
  readonly [type: string]: { readonly needs: readonly string[]; readonly may: readonly string[] };
} = {
  local: { needs: ["path"], may: [] },
  memory: { needs: [], may: [] },
  s3: { needs: ["bucket"], may: ["region", "prefix", "endpoint", "path_style", "profile"] },
  sftp: {
    needs: ["host", "path"],
    may: ["port", "user", "password_env", "password_file", "key_file", "known_hosts"],
  },
  webdav: { needs: ["url"], may: ["path", "user", "password_env", "password_file"] },
  rclone: { needs: ["remote"], may: ["config_file"] },
  plugin: { needs: ["module"], may: ["options"] },
};
const STORE_KEYS = new Set(Object.values(STORES).flatMap(({ needs, may }) => [...needs, ...may]));

/** Says what is missing for this kind of store, and what belongs to another kind. False: something is missing. */
function checkStore(type: string, values: Readonly<Record<string, unknown>>, at: KeyPath, say: Say): boolean {
  const kind = STORES[type];
  if (kind === undefined) return false;
  const missing = kind.needs.filter((name) => values[name] === undefined);
  for (const name of missing) say(at, `${type} needs ${name}; add ${name} = ...`);
  for (const [name, value] of Object.entries(values)) {
    if (value === undefined || !STORE_KEYS.has(name) || kind.needs.includes(name) || kind.may.includes(name)) continue;
    const owners = Object.keys(STORES).filter((other) =>
      [...STORES[other]?.needs ?? [], ...STORES[other]?.may ?? []].includes(name)
    );
    say([...at, name], `belongs to ${owners.join(", ")}, and this is ${type}; remove it or change the kind`);
  }
  for (const name of ["url", "endpoint"]) {
    const value = values[name];
    if (typeof value !== "string" || !kind.needs.concat(kind.may).includes(name)) continue;
    const url = URL.parse(value);
    if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
      say([...at, name], "must be a URL that begins with http:// or https://");
    } else if (url.username !== "" || url.password !== "") {
      say([...at, name], "secrets never stand in this file; use user and password_env instead of user:password@");
    }
  }
  if (values["password_env"] !== undefined && values["password_file"] !== undefined) {
    say([...at, "password_file"], "stands beside password_env; keep one of the two");
  }
  return missing.length === 0;
}

function optional<K extends string, T>(name: K, value: T | undefined): { [P in K]?: T } {
  return (value === undefined ? {} : { [name]: value }) as { [P in K]?: T };
}

/** Values that `checkStore` has found complete, as the typed description. */
function storeOf(type: string, values: StoreValues, absolute: (path: string) => string): StoreConfig {
  const secret: SecretSource = {
    ...optional("env", values.password_env),
    ...optional("file", values.password_file === undefined ? undefined : absolute(values.password_file)),
  };
  switch (type) {
    case "s3": {
      const prefix = (values.prefix ?? "").replace(/^\/+/, "");
      return {
        type: "s3",
        bucket: values.bucket ?? "",
        prefix: prefix === "" || prefix.endsWith("/") ? prefix : `${prefix}/`,
        pathStyle: values.path_style ?? values.endpoint !== undefined,
        ...optional("region", values.region),
        ...optional("endpoint", values.endpoint),
        ...optional("profile", values.profile),
      };
    }
    case "sftp":
      return {
        type: "sftp",
        host: values.host ?? "",
        port: values.port ?? 22,
        path: values.path ?? "",
        secret,
        ...optional("user", values.user),
        ...optional("keyFile", values.key_file === undefined ? undefined : absolute(values.key_file)),
        ...optional("knownHosts", values.known_hosts === undefined ? undefined : absolute(values.known_hosts)),
      };
    case "webdav":
      return {
        type: "webdav",
        url: values.url ?? "",
        path: values.path ?? "/",
        secret,
        ...optional("user", values.user),
      };
    case "rclone":
      return {
        type: "rclone",
        remote: values.remote ?? "",
        ...optional("configFile", values.config_file === undefined ? undefined : absolute(values.config_file)),
      };
    case "memory":
      return { type: "memory" };
    default:
      return { type: "local", path: absolute(values.path ?? "") };
  }
}

function watermarksOf(
  values: { high_watermark_gb?: number | undefined; low_watermark_gb?: number | undefined },
  at: KeyPath,
  say: Say,
): Watermarks | null {
  const { high_watermark_gb: high, low_watermark_gb: low } = values;
  if (high === undefined) {
    if (low !== undefined) say([...at, "low_watermark_gb"], "stands without high_watermark_gb; add it");
    return null;
  }
  if (low !== undefined && low >= high) {
    say(
      [...at, "low_watermark_gb"],
      "must be below high_watermark_gb: eviction runs from the high one down to the low one",
    );
  }
  // Three quarters, as in the example of the file.
  return { high, low: low ?? Math.floor(high * 0.75) };
}

/** Builds the configuration from checked values; says what contradicts itself. */
function build(values: FileValues, file: string | null, env: Environment, say: Say): Config {
  const base = file === null ? "/" : file.slice(0, Math.max(1, file.lastIndexOf("/")));
  const absolute = (path: string) => resolvePath(path, base, env);
  const { daemon, tiers, upload, eviction, cache, limits } = values;
  const fromEnvironment = env("ANYFS_STATE_DIR");
  const stateDir = daemon.state_dir === undefined || (fromEnvironment !== undefined && fromEnvironment !== "")
    ? stateFolder(env)
    : absolute(daemon.state_dir);
  const cacheFromEnvironment = env("ANYFS_CACHE_DIR");
  const cacheDir = cache.dir === undefined || (cacheFromEnvironment !== undefined && cacheFromEnvironment !== "")
    ? cacheFolder(env)
    : absolute(cache.dir);
  if ((daemon.tls_cert === undefined) !== (daemon.tls_key === undefined)) {
    const [there, missing] = daemon.tls_key === undefined ? ["tls_cert", "tls_key"] : ["tls_key", "tls_cert"];
    say(["daemon", there], `stands without ${missing}; https needs both`);
  }
  if (eviction.recency_weight + eviction.frequency_weight === 0) {
    say(["eviction"], "recency_weight and frequency_weight are both 0: nothing would tell packs apart; raise one");
  }
  if (eviction.interval_secs === 0) say(["eviction", "interval_secs"], "must be above 0");
  const nasReady = tiers.nas !== undefined && checkStore(tiers.nas.backend, tiers.nas, ["tiers", "nas"], say);
  const s3Ready = tiers.s3 !== undefined && checkStore(tiers.s3.backend, tiers.s3, ["tiers", "s3"], say);
  const localPath = tiers.local.path === undefined ? `${stateDir}/hot` : absolute(tiers.local.path);
  const localWatermarks = watermarksOf(tiers.local, ["tiers", "local"], say);
  const nasWatermarks = tiers.nas === undefined ? null : watermarksOf(tiers.nas, ["tiers", "nas"], say);
  const used = new Map([[localPath, "tiers.local"]]);
  for (const [name, tier] of [["nas", tiers.nas], ["s3", tiers.s3]] as const) {
    if (tier?.backend !== "local" || tier.path === undefined) continue;
    const path = absolute(tier.path);
    const other = used.get(path);
    if (other !== undefined) {
      say(["tiers", name, "path"], `is also the path of ${other}; two tiers in one folder are one copy`);
    }
    used.set(path, `tiers.${name}`);
  }
  const ids = new Set<string>();
  const origins: Origin[] = [];
  for (const [i, origin] of values.origins.entries()) {
    const at = ["origins", i];
    if (ids.has(origin.id)) {
      say([...at, "id"], `${JSON.stringify(origin.id)} is used twice; every origin needs its own`);
    }
    ids.add(origin.id);
    if (!checkStore(origin.type, origin, at, say)) continue;
    const store: StoreConfig = origin.type === "plugin"
      ? { type: "plugin", module: absolute(origin.module ?? ""), options: origin.options ?? {} }
      : storeOf(origin.type, origin, absolute);
    origins.push({ id: origin.id, priority: origin.priority, store });
  }
  if (cache.size === 0) say(["cache", "size"], "must be above 0; a client keeps what it works with there");
  return {
    file,
    daemon: {
      listen: daemon.listen,
      stateDir,
      mountPath: daemon.mount_path === undefined ? null : absolute(daemon.mount_path),
      tokenFile: daemon.token_file === undefined ? null : absolute(daemon.token_file),
      tls: daemon.tls_cert === undefined || daemon.tls_key === undefined
        ? null
        : { certFile: absolute(daemon.tls_cert), keyFile: absolute(daemon.tls_key) },
      insecure: daemon.insecure,
      lockLeaseMs: daemon.lock_lease,
      logLevel: daemon.log_level,
      logFormat: daemon.log_format,
    },
    tiers: {
      local: { path: localPath, watermarks: localWatermarks },
      nas: tiers.nas === undefined || !nasReady
        ? null
        : { store: storeOf(tiers.nas.backend, tiers.nas, absolute), watermarks: nasWatermarks },
      s3: tiers.s3 === undefined || !s3Ready ? null : { store: storeOf(tiers.s3.backend, tiers.s3, absolute) },
    },
    upload: {
      flushBytes: upload.flush_size_mb,
      flushIntervalMs: upload.flush_interval_secs,
      transfers: upload.transfers,
      bandwidth: upload.bandwidth_limit ?? null,
    },
    eviction: {
      intervalMs: eviction.interval_secs,
      recencyWeight: eviction.recency_weight,
      frequencyWeight: eviction.frequency_weight,
    },
    origins,
    cache: {
      dir: cacheDir,
      size: cache.size,
      metadataTtlMs: cache.metadata_ttl,
      prefetch: cache.prefetch,
      passthrough: cache.passthrough,
    },
    sync: { intervalMs: values.sync.interval, conflict: values.sync.conflict },
    limits: {
      maxTotalSize: limits.max_total_size ?? null,
      maxFileSize: limits.max_file_size ?? null,
      maxNodes: limits.max_nodes ?? null,
      maxEntriesPerDirectory: limits.max_entries_per_directory ?? null,
      maxDepth: limits.max_depth ?? null,
      requestsPerSecond: limits.requests_per_second ?? null,
    },
    snapshots: { keepMs: Math.round(values.snapshots.keep_days * 86_400_000) },
    library: { template: values.library.template },
  };
}

/**
 * Checks the text of a configuration file. `file` names it, absolutely, and relative paths in it are below its folder.
 * The configuration is null when there are problems. Throws only when the environment leaves no place for the state.
 */
export function checkConfig(
  text: string,
  file: string,
  env: Environment,
): { config: Config | null; problems: Problem[] } {
  let parsed: unknown;
  try {
    parsed = parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const reason = (error.message.split("\n")[0] ?? "").replace(/^Invalid TOML document: /, "");
    return { config: null, problems: [{ line: error.line, key: "", message: `not valid TOML: ${reason}` }] };
  }
  const lines = new TomlLines(text);
  const problems: Problem[] = [];
  const say: Say = (path, message) => problems.push({ line: lines.lineOf(path), key: keyName(path), message });
  const result = v.safeParse(fileSchema, parsed);
  if (!result.success) {
    for (const issue of result.issues) {
      explain(issue, (issue.path ?? []).map((item) => item.key as string | number), say);
    }
  }
  const config = result.success ? build(result.output, file, env, say) : null;
  problems.sort((a, b) => a.line - b.line);
  return { config: problems.length === 0 ? config : null, problems };
}

/** What holds with no file at all. */
export function defaults(env: Environment): Config {
  return build(v.parse(fileSchema, {}), null, env, () => {});
}

/** The text of a configuration file. Throws `invalid_input`: without its file a run is wrongly configured. */
export async function readConfigText(file: string): Promise<string> {
  try {
    return await readText(file);
  } catch (cause) {
    const missing = hasCode(cause, "not_found");
    const reason = missing ? "no such file" : cause instanceof Error ? cause.message : String(cause);
    const fix = missing ? `; anyfs config init ${file} writes one` : "";
    throw new FsError("invalid_input", `configuration ${file}: ${reason}${fix}`, { path: file, cause });
  }
}

/** Reads and checks one file. Throws `invalid_input` with the first problem and how many more there are. */
export async function readConfig(file: string, env: Environment): Promise<Config> {
  const text = await readConfigText(file);
  const { config, problems } = checkConfig(text, file, env);
  if (config !== null) return config;
  const [first] = problems;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more: anyfs config check)` : "";
  const said = first === undefined ? `${file}: unusable` : printProblem(file, first);
  throw new FsError("invalid_input", `${said}${more}`, { operation: "configure", path: file });
}

/** The file that counts: the named one, ANYFS_CONFIG's, or the first that exists of the usual places; null: none. */
export async function findConfigFile(
  named: string | undefined,
  env: Environment,
  folder: string,
): Promise<string | null> {
  const given = named ?? configFileOfEnvironment(env);
  if (given !== undefined) return resolvePath(given, folder, env);
  for (const candidate of configFileCandidates(env)) if (await info(candidate) !== null) return candidate;
  return null;
}

/** The configuration of this run. `named` is --config's value, `folder` what a relative one is below. */
export async function loadConfig(named: string | undefined, env: Environment, folder: string): Promise<Config> {
  const file = await findConfigFile(named, env, folder);
  return file === null ? defaults(env) : await readConfig(file, env);
}
