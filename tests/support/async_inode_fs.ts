/** Any InodeFs answering late: every answer is a promise that settles in another turn of the event loop. */
import { setImmediate } from "node:timers";
import type { InodeFs } from "../../core/fs/inode_fs.ts";

/** Methods whose answer the contract does not allow to be late, or that are no questions. */
const IMMEDIATE = new Set(["attach", "forget", "release"]);

export interface Delay {
  /** Called before each late answer; its promise decides when. */
  wait(method: string, args: readonly unknown[]): Promise<void>;
}

/** One turn of the event loop. */
export const nextTurn: Delay = { wait: () => new Promise((resolve) => setImmediate(resolve)) };

/** `read` gets a buffer of its own, `write` a copy of its data, as the contract demands of a late answer. */
export function asyncInodeFs(fs: InodeFs, delay: Delay = nextTurn): InodeFs {
  return new Proxy(fs, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== "function") return value;
      const method = value.bind(target) as (...args: unknown[]) => unknown;
      if (typeof property === "symbol" || IMMEDIATE.has(property)) return method;
      return async (...args: unknown[]) => {
        if (property === "write") args[3] = (args[3] as Uint8Array).slice();
        if (property !== "read") {
          await delay.wait(property, args);
          return await method(...args);
        }
        const own = new Uint8Array((args[3] as Uint8Array).length);
        args[3] = own;
        await delay.wait(property, args);
        const result = await method(...args);
        return typeof result === "number" ? own.subarray(0, result) : result;
      };
    },
  });
}
