/** Where AnyFS keeps things when nobody says otherwise: the XDG base directories and the ANYFS_ environment variables. */
import { FsError } from "../fs/error.ts";

/** A look into the environment; `getEnv` of core/platform/process in the program. */
export type Environment = (name: string) => string | undefined;

function set(env: Environment, name: string): string | undefined {
  const value = env(name);
  return value === undefined || value === "" ? undefined : value;
}

/** XDG Base Directory Specification 0.8: the variable when it is absolute, else the folder below HOME. */
function xdgFolder(env: Environment, variable: string, belowHome: string, instead: string): string {
  const given = set(env, variable);
  if (given?.startsWith("/")) return `${given}/anyfs`;
  const home = set(env, "HOME");
  if (home === undefined) {
    throw new FsError("invalid_input", `neither HOME nor ${variable} is set, so there is no place for ${instead}`);
  }
  return `${home}/${belowHome}/anyfs`;
}

export function stateFolder(env: Environment): string {
  return set(env, "ANYFS_STATE_DIR") ??
    xdgFolder(env, "XDG_DATA_HOME", ".local/share", "the state; set ANYFS_STATE_DIR");
}

export function cacheFolder(env: Environment): string {
  return set(env, "ANYFS_CACHE_DIR") ?? xdgFolder(env, "XDG_CACHE_HOME", ".cache", "the cache; set ANYFS_CACHE_DIR");
}

/** The configuration file named by ANYFS_CONFIG, if any. */
export const configFileOfEnvironment = (env: Environment): string | undefined => set(env, "ANYFS_CONFIG");

/** Where a configuration file is looked for when none is named, first come first taken. */
export function configFileCandidates(env: Environment): string[] {
  const candidates = ["/etc/anyfs/config.toml"];
  if (set(env, "HOME") !== undefined || set(env, "XDG_CONFIG_HOME") !== undefined) {
    candidates.unshift(`${xdgFolder(env, "XDG_CONFIG_HOME", ".config", "the configuration")}/config.toml`);
  }
  return candidates;
}

/** `~` and `~/x` are below HOME, relative paths below `base`. */
export function resolvePath(path: string, base: string, env: Environment): string {
  if (path === "~" || path.startsWith("~/")) {
    const home = set(env, "HOME");
    if (home === undefined) throw new FsError("invalid_input", `${path}: HOME is not set; write the path out`);
    return home + path.slice(1);
  }
  const whole = path.startsWith("/") ? path : `${base}/${path}`;
  const parts: string[] = [];
  for (const part of whole.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}
