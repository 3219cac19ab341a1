/** A mount in a process of its own: `mount --background` and `serve --mount`. */
import { FsError, type FsErrorCode } from "../core/fs/error.ts";
import { selfCommand } from "../core/platform/process.ts";
import { type Spawned, spawnProgram } from "../core/platform/spawn.ts";

/** A code whose exit status is the child's. */
function codeOfExit(exit: number): FsErrorCode {
  const codes: Record<number, FsErrorCode> = { 2: "invalid_input", 3: "not_found", 4: "conflict", 5: "unavailable" };
  return codes[exit] ?? "internal";
}

/**
 * Starts this program with these arguments (a mount command) and resolves when it is mounted, with its ready line.
 * Rejects with what it said when it ends before that.
 */
export async function startMount(
  programArgs: readonly string[],
  options: { readonly detached?: boolean; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<{ said: string; child: Spawned }> {
  const [program, ...first] = selfCommand();
  const child = spawnProgram(program, [...first, ...programArgs], {
    env: { ...options.env, ANYFS_BACKGROUND: "1" },
    output: "piped",
    detached: options.detached ?? false,
  });
  let said = "";
  if (child.stdout !== null) {
    for await (const bytes of child.stdout) {
      said += new TextDecoder().decode(bytes);
      if (said.includes("\n")) return { said, child };
    }
  }
  let why = "";
  if (child.stderr !== null) { for await (const bytes of child.stderr) why += new TextDecoder().decode(bytes); }
  const { code } = await child.exited;
  throw new FsError(
    codeOfExit(code),
    why.replace(/^anyfs: /, "").trim() || "the mount ended before it was ready",
  );
}
