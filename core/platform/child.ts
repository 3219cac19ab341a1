/** Child processes: run one to its end, or keep one beside us that learns of our death by end of file on its input. */
import { fromDeno } from "./files.ts";

/** How a child process ended. */
export interface ChildResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end with no input. Inherited descriptors stay open in it. Throws not_found when there is no such program. */
export async function runProgram(
  program: string,
  programArgs: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<ChildResult> {
  try {
    const output = await new Deno.Command(program, {
      args: [...programArgs],
      env: { ...environment },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    const decoder = new TextDecoder();
    return { code: output.code, stdout: decoder.decode(output.stdout), stderr: decoder.decode(output.stderr) };
  } catch (error) {
    throw fromDeno(error, "run", program);
  }
}

/** A child that reads its input until we write to it or die. */
export interface Watcher {
  /** Writes a line, closes its input and waits for its end. */
  finish(line: string): Promise<void>;
}

/** Starts a program in `/` that outlives us, doesn't keep us alive and whose input ends when we end. */
export function startWatcher(program: string, programArgs: readonly string[]): Watcher {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...programArgs],
      stdin: "piped",
      stdout: "null",
      stderr: "null",
      cwd: "/",
    }).spawn();
  } catch (error) {
    throw fromDeno(error, "run", program);
  }
  child.unref();
  const writer = child.stdin.getWriter();
  return {
    async finish(line) {
      child.ref();
      try {
        await writer.write(new TextEncoder().encode(line + "\n"));
        await writer.close();
      } catch {
        // It has ended already: nothing to tell.
      }
      await child.status;
    },
  };
}
