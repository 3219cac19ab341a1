/** What every command is given: global flags, configuration, the server's address and token, output, interruption. */
import type { Config } from "../core/config/config.ts";
import { FsError, toFsError } from "../core/fs/error.ts";
import { createLogger, type Level, type Logger } from "../core/observe/log.ts";
import { type Progress, startProgress } from "../core/observe/progress.ts";
import { printable } from "../core/observe/style.ts";
import { systemClock } from "../core/platform/clock.ts";
import { permissionsOf, readText } from "../core/platform/files.ts";
import { currentFolder, exit, getEnv, onSignals, print, terminalColumns } from "../core/platform/process.ts";
import { createOutput, type Output } from "./output.ts";

/** The flags every command takes. */
export interface GlobalOptions {
  readonly config?: string | undefined;
  readonly server?: string | undefined;
  readonly tokenFile?: string | undefined;
  readonly logLevel?: Level | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

export interface Context {
  readonly globals: GlobalOptions;
  readonly out: Output;
  /** Aborts on SIGINT and SIGTERM; its reason is the signal's name. A second one ends the process at once. */
  readonly signal: AbortSignal;
  /** Lines on standard error, from --log-level on. @default "warn" */
  readonly log: Logger;
  /** The configuration; read when first asked for. Throws `invalid_input`. */
  config(): Promise<Config>;
  /** --server or ANYFS_URL, as given; null: neither, find one. */
  server(): string | null;
  /** From --token-file, ANYFS_TOKEN or the configuration's token_file; null: none. Throws when a file is open to others. */
  token(): Promise<string | null>;
  /** Progress on standard error, silent with --quiet and --json. */
  progress(label: string): Progress;
}

function notEmpty(value: string | undefined): string | null {
  return value === undefined || value === "" ? null : value;
}

/** Throws `invalid_input` when the file is missing, empty, or readable by others than its owner. */
async function readTokenFile(file: string): Promise<string> {
  const permissions = await permissionsOf(file);
  if (permissions === null) {
    throw new FsError("invalid_input", `token file ${file}: no such file; anyfs token create makes a token`, {
      path: file,
    });
  }
  if ((permissions & 0o077) !== 0) {
    throw new FsError("invalid_input", `token file ${file}: others may read it; chmod 600 ${file}`, { path: file });
  }
  const token = (await readText(file)).trim();
  if (token === "") throw new FsError("invalid_input", `token file ${file}: it is empty`, { path: file });
  return token;
}

function createContext(globals: GlobalOptions, signal: AbortSignal): Context {
  let config: Promise<Config> | null = null;
  const out = createOutput({ json: globals.json ?? false, quiet: globals.quiet ?? false });
  const log = createLogger({
    level: globals.logLevel ?? "warn",
    now: systemClock.now,
    write: (line) => print("stderr", line),
  });
  const context: Context = {
    globals,
    out,
    signal,
    log,
    config() {
      config ??= import("../core/config/config.ts").then(({ loadConfig }) =>
        loadConfig(globals.config, getEnv, currentFolder())
      );
      return config;
    },
    server: () => notEmpty(globals.server) ?? notEmpty(getEnv("ANYFS_URL")),
    async token() {
      if (globals.tokenFile !== undefined) return await readTokenFile(globals.tokenFile);
      const given = notEmpty(getEnv("ANYFS_TOKEN"));
      if (given !== null) return given;
      const { daemon } = await context.config();
      return daemon.tokenFile === null ? null : await readTokenFile(daemon.tokenFile);
    },
    progress: (label) =>
      startProgress({
        label,
        clock: systemClock,
        columns: terminalColumns(),
        write: (text) => print("stderr", text),
        quiet: out.quiet || out.json,
      }),
  };
  return context;
}

/** One line: what, why, what to do. */
export function errorLine(error: unknown): string {
  return `anyfs: ${printable(toFsError(error).message.replace(/\s*\n\s*/g, " "))}\n`;
}

/** Runs an action; its failure is one line on standard error. Returns the exit code. */
export async function runAction(
  globals: GlobalOptions,
  action: (context: Context) => Promise<number | void>,
): Promise<number> {
  const interrupt = new AbortController();
  const off = onSignals(["SIGINT", "SIGTERM"], (signal) => {
    if (interrupt.signal.aborted) exit(130);
    interrupt.abort(signal);
  });
  try {
    return await action(createContext(globals, interrupt.signal)) ?? 0;
  } catch (error) {
    // Whoever reads our output has read enough.
    if (error instanceof Error && error.name === "BrokenPipe") return 0;
    // What fails after an interruption fails because of it.
    if (interrupt.signal.aborted) {
      print("stderr", "anyfs: interrupted\n");
      return 130;
    }
    const fsError = toFsError(error);
    print("stderr", errorLine(fsError));
    if (fsError.code === "internal" && (globals.logLevel === "debug" || globals.logLevel === "trace")) {
      print("stderr", `${error instanceof Error ? error.stack : error}\n`);
    }
    return fsError.exitCode;
  } finally {
    off();
  }
}
