/** Long-lived child processes that are supervised: their output as streams, their end as a promise, signals. */
import { fromDeno } from "./files.ts";

export interface SpawnOptions {
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Standard output and error: ours, given as streams, or thrown away. @default "null" */
  readonly output?: "inherit" | "piped" | "null";
  /** In a session of its own: it outlives us and gets none of our terminal's signals. @default false */
  readonly detached?: boolean;
}

export interface Spawned {
  readonly pid: number;
  /** Null unless `output` is "piped"; then they must be read, or the child stops when a pipe is full. */
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>> | null;
  readonly exited: Promise<{ readonly code: number; readonly signal: string | null }>;
  /** A signal to a process that has ended is nothing. */
  kill(signal: "SIGTERM" | "SIGINT" | "SIGKILL" | "SIGHUP"): void;
  /** Lets this process end while the child still runs. */
  unref(): void;
}

/** Starts a program with no input. Throws not_found when there is no such program. */
export function spawnProgram(program: string, programArgs: readonly string[], options: SpawnOptions = {}): Spawned {
  const output = options.output ?? "null";
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...programArgs],
      stdin: "null",
      stdout: output,
      stderr: output,
      detached: options.detached ?? false,
      ...(options.env === undefined ? {} : { env: { ...options.env } }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    }).spawn();
  } catch (error) {
    throw fromDeno(error, "run", program);
  }
  return {
    pid: child.pid,
    stdout: output === "piped" ? child.stdout : null,
    stderr: output === "piped" ? child.stderr : null,
    exited: child.status.then(({ code, signal }) => ({ code, signal })),
    kill(signal) {
      try {
        child.kill(signal);
      } catch {
        // It has ended.
      }
    },
    unref: () => child.unref(),
  };
}
