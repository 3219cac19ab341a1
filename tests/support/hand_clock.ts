/** A clock for tests that stands until it is moved. */
import type { Clock } from "../../core/platform/clock.ts";

export function handClock(): Clock & { move(ms: number): Promise<void> } {
  let now = 0;
  let number = 0;
  const timers = new Map<number, { at: number; run: () => void }>();
  return {
    now: () => now,
    monotonic: () => now,
    sleep: (ms) => new Promise((resolve) => timers.set(number++, { at: now + ms, run: resolve })),
    after(ms, run) {
      const id = number++;
      timers.set(id, { at: now + ms, run });
      return () => timers.delete(id);
    },
    every: () => () => {},
    async move(ms) {
      now += ms;
      for (const [id, { at, run }] of [...timers]) {
        if (at > now || !timers.delete(id)) continue;
        run();
      }
      await turns();
    },
  };
}
/** Lets settled promises go on. */
export async function turns(): Promise<void> {
  for (let i = 0; i < 60; i++) await null;
}
