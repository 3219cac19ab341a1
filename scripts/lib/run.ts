/** Runs a command for the scripts, with a time limit, and gives its output. */

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  readonly timeoutMs?: number;
  /** Let the command write to our own standard streams. */
  readonly inherit?: boolean;
}

export interface RunResult {
  /** Exit code; 124 when the time limit ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Throws only when the command can't be started. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [name, ...args] = command;
  if (name === undefined) throw new Error("no command to run");
  const limit = options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs);
  const child = new Deno.Command(name, {
    args,
    stdin: "null",
    stdout: options.inherit ? "inherit" : "piped",
    stderr: options.inherit ? "inherit" : "piped",
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    ...(options.env === undefined ? {} : { env: options.env }),
    ...(limit === undefined ? {} : { signal: limit }),
  }).spawn();
  if (options.inherit) {
    const status = await child.status;
    return { code: limit?.aborted ? 124 : status.code, stdout: "", stderr: "" };
  }
  const output = await child.output();
  const decoder = new TextDecoder();
  return {
    code: limit?.aborted ? 124 : output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}
