/** The process: arguments, environment, signals, standard streams, child processes, exit. */

export const args = (): readonly string[] => Deno.args;
export const getEnv = (name: string): string | undefined => Deno.env.get(name);
export const pid = (): number => Deno.pid;
export const hostname = (): string => Deno.hostname();
export const execPath = (): string => Deno.execPath();
export const currentFolder = (): string => Deno.cwd();
export const exit = (code: number): never => Deno.exit(code);
export const setExitCode = (code: number): void => {
  Deno.exitCode = code;
};

/** CAP_SYS_ADMIN of linux/capability.h. */
const CAP_SYS_ADMIN = 21n;
/** Has a process CAP_SYS_ADMIN (in its user namespace; proc(5), CapEff)? True when that can't be read. */
export function mayAdminister(pid: number): boolean {
  let status: string;
  try {
    status = Deno.readTextFileSync(`/proc/${pid}/status`);
  } catch {
    return true;
  }
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return effective === undefined || (BigInt(`0x${effective}`) >> CAP_SYS_ADMIN & 1n) === 1n;
}

/** Runs `handler` on each of the signals; the result takes it off again. */
export function onSignals(
  signals: readonly ("SIGINT" | "SIGTERM" | "SIGHUP")[],
  handler: (signal: string) => void,
): () => void {
  const listeners = signals.map((signal) => {
    const listener = () => handler(signal);
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((off) => off());
}

export const isTerminal = (stream: "stdin" | "stdout" | "stderr"): boolean => Deno[stream].isTerminal();
export const stdin = (): ReadableStream<Uint8Array<ArrayBuffer>> => Deno.stdin.readable;
export const stdout = (): WritableStream<Uint8Array<ArrayBuffer>> => Deno.stdout.writable;

/** Writes all of the text, synchronously. */
export function print(stream: "stdout" | "stderr", text: string): void {
  const bytes = new TextEncoder().encode(text);
  let done = 0;
  while (done < bytes.length) done += Deno[stream].writeSync(bytes.subarray(done));
}

export const memoryUsage = (): { rss: number; heapUsed: number; external: number } => Deno.memoryUsage();

/** Is this the compiled executable (true) or a run from source? */
export const isStandalone = (): boolean => Deno.build.standalone;

/** Width of the terminal in characters; null when standard error is none. */
export function terminalColumns(): number | null {
  try {
    return Deno.stderr.isTerminal() ? Deno.consoleSize().columns : null;
  } catch {
    return null;
  }
}

/** How to start this program once more: the binary, or the runtime with the main module. */
export function selfCommand(): [program: string, ...args: string[]] {
  return isStandalone() ? [Deno.execPath()] : [Deno.execPath(), "run", "-A", Deno.mainModule];
}
