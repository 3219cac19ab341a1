/**
 * ReservedNames: names that one device is about to create and that no other may (O_EXCL, mkdir, link). A device's creation
 * comes in its turn, after all it did before; the reservation comes at once, so that of two only one is told yes.
 */
import type { Op } from "../index/ops.ts";

interface Reservation {
  readonly device: number;
  /** The creation has this request number or a higher one. */
  readonly from: number;
}
/** Names one device may have reserved. */
export const MAX_RESERVED = 10_000;

const keyOf = (parent: number, name: string): string => `${parent}/${name}`;

export class ReservedNames {
  readonly #names = new Map<string, Reservation>();
  readonly #byDevice = new Map<number, Set<string>>();

  countOf(device: number): number {
    return this.#byDevice.get(device)?.size ?? 0;
  }
  /** False: another device has it. */
  take(device: number, parent: number, name: string, from: number): boolean {
    const key = keyOf(parent, name);
    const held = this.#names.get(key);
    if (held !== undefined && held.device !== device) return false;
    this.#names.set(key, { device, from: Math.max(from, held?.from ?? 0) });
    this.#byDevice.set(device, (this.#byDevice.get(device) ?? new Set()).add(key));
    return true;
  }
  give(device: number, parent: number, name: string): void {
    const key = keyOf(parent, name);
    if (this.#names.get(key)?.device !== device) return;
    this.#names.delete(key);
    const own = this.#byDevice.get(device);
    own?.delete(key);
    if (own?.size === 0) this.#byDevice.delete(device);
  }
  /** The operations of a request were applied, or refused for good: who made a name needs it reserved no longer. */
  applied(device: number, request: number, ops: readonly Op[]): void {
    if (this.countOf(device) === 0) return;
    const made = new Map<string, { parent: number; name: string }>();
    for (const op of ops) {
      const { t } = op;
      if (t === "create" || t === "link") made.set(keyOf(op.parent, op.name), op);
      // Many requests may come as one: what was made and removed again in it says nothing of the next of that name.
      if (t === "unlink" || t === "rmdir" || t === "rename") made.delete(keyOf(op.parent, op.name));
      if (t === "rename") made.set(keyOf(op.newParent, op.newName), { parent: op.newParent, name: op.newName });
    }
    for (const [key, { parent, name }] of made) {
      const held = this.#names.get(key);
      if (held?.device === device && request >= held.from) this.give(device, parent, name);
    }
  }
  /** The device is gone: nobody waits for it. */
  left(device: number): void {
    for (const key of this.#byDevice.get(device) ?? []) this.#names.delete(key);
    this.#byDevice.delete(device);
  }
}
