/** readOnly(): a layer that refuses every change with `read_only` and lets every look through. */
import { MUTATING_METHODS } from "../fs/capability.ts";
import type { Fs } from "../fs/contract.ts";
import { failure } from "../fs/failure.ts";
import { forward, type Layer, type Overrides } from "../fs/stack.ts";

/**
 * @example
 * ```ts
 * const safe = stack(openMemoryBackend(), readOnly());
 * ```
 */
export function readOnly(): Layer {
  const refusals: Overrides = Object.fromEntries(
    MUTATING_METHODS.map((method) => [
      method,
      (path: string, ...rest: unknown[]) => {
        // symlink(target, path) names its victim second.
        const victim = method === "symlink" && typeof rest[0] === "string" ? rest[0] : path;
        return Promise.reject(failure("read_only", method, victim));
      },
    ]),
  );
  return <F extends Fs>(inner: F) => forward(inner, refusals);
}
