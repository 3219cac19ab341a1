/** Finds, names and removes what a test run left behind: mounts under its folder, and processes that carry its mark. */
import { run } from "./run.ts";

/** Mount points at or under `folder`, deepest first (proc_pid_mountinfo(5), field 5, octal escapes undone). */
function mountsUnder(folder: string): string[] {
  const found: string[] = [];
  for (const line of Deno.readTextFileSync("/proc/self/mountinfo").split("\n")) {
    const field = line.split(" ")[4];
    if (field === undefined) continue;
    const point = field.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (point === folder || point.startsWith(`${folder}/`)) found.push(point);
  }
  return found.reverse();
}

/** Processes other than this one whose environment holds `mark`. */
function processesWith(mark: string): { pid: number; command: string }[] {
  const found: { pid: number; command: string }[] = [];
  for (const entry of Deno.readDirSync("/proc")) {
    const pid = Number(entry.name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    try {
      const environment = Deno.readTextFileSync(`/proc/${pid}/environ`);
      if (!environment.split("\0").includes(mark)) continue;
      found.push({ pid, command: Deno.readTextFileSync(`/proc/${pid}/cmdline`).replaceAll("\0", " ").trim() });
    } catch {
      // Ended meanwhile, or another user's: not ours either way.
    }
  }
  return found;
}

/** One sentence for each thing found. All of it is gone when this returns. */
export async function sweep(folder: string, mark: string): Promise<string[]> {
  const found: string[] = [];
  const real = await Deno.realPath(folder);
  // A daemon that was told to end may need a moment; what is still there after it was left behind.
  for (let i = 0; i < 20 && processesWith(mark).length > 0; i++) await new Promise((done) => setTimeout(done, 100));
  for (const { pid, command } of processesWith(mark)) {
    found.push(`process ${pid}: ${command}`);
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // Ended by itself.
    }
  }
  for (const point of mountsUnder(real)) {
    found.push(`mount ${point}`);
    const umount = await run(["umount", "-l", point], { timeoutMs: 10_000 }).catch(() => ({ code: 1 }));
    if (umount.code !== 0) await run(["fusermount3", "-uz", point], { timeoutMs: 10_000 }).catch(() => null);
  }
  return found;
}
