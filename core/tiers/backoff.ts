/** Waiting times between attempts: 100 ms, 500 ms, 2 s, then doubling up to 5 minutes, with jitter. */

const FIRST = [100, 500, 2000];
export const LONGEST_WAIT = 300_000;

/** Milliseconds to wait after the given number of failed attempts (1 or more); `unit` in [0, 1) spreads them by ±20%. */
export function backoffMs(attempts: number, unit: number): number {
  const step = FIRST[attempts - 1] ?? Math.min(LONGEST_WAIT, 2000 * 2 ** Math.min(attempts - 3, 20));
  return Math.round(step * (0.8 + 0.4 * unit));
}
