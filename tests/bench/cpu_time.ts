/** Processor time of processes and of all that they started, from /proc/PID/stat (proc_pid_stat(5)). */

/** Of one tick: USER_HZ, which is 100 on every Linux that has /proc/PID/stat in these units. */
const TICKS_PER_SECOND = 100;

/** Seconds of user and system time until now of these processes, their living descendants and those they waited for. */
export function cpuSeconds(pids: readonly number[]): number {
  const parents = new Map<number, { parent: number; ticks: number }>();
  for (const { name } of Deno.readDirSync("/proc")) {
    const pid = Number(name);
    if (!(pid > 0)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      // The name of the program, in parentheses, may hold anything; field 3 follows it.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
      // Fields 14 to 17: utime, stime, cutime, cstime.
      const ticks = fields.slice(11, 15).reduce((sum, value) => sum + value, 0);
      parents.set(pid, { parent: fields[1] ?? 0, ticks });
    } catch {
      // It has ended meanwhile.
    }
  }
  const wanted = new Set(pids);
  const belongs = (pid: number): boolean => {
    for (let at = pid; at > 1; at = parents.get(at)?.parent ?? 0) if (wanted.has(at)) return true;
    return false;
  };
  let ticks = 0;
  for (const [pid, process] of parents) if (belongs(pid)) ticks += process.ticks;
  return ticks / TICKS_PER_SECOND;
}
