/** stack(): a backend under layers, each of which wraps a filesystem and is one, and keeps what the one below can do. */
import { FS_METHODS, OPTIONAL_METHODS } from "./capability.ts";
import type { Backend, Fs, FsLink, FsPermissions, FsStats, FsSync, FsTimes, FsWatch, FsXattr } from "./contract.ts";

/** Every method a filesystem may have. */
export type AnyFs = Fs & Partial<FsLink & FsPermissions & FsTimes & FsXattr & FsSync & FsStats & FsWatch & Backend>;

/**
 * What is left of a filesystem's type under a layer: its capabilities of the contract. Methods that the contract doesn't
 * know are gone, so that nothing gets past a layer that guards something.
 */
export type Wrapped<F> = Fs & Pick<F, Extract<keyof F, keyof AnyFs>>;

/** Middleware: takes the filesystem below, gives the one above. Capabilities survive. */
export type Layer = <F extends Fs>(inner: F) => Wrapped<F>;

/** What a layer replaces. Methods that the filesystem below lacks are left out again by `forward`. */
export type Overrides = Partial<Omit<AnyFs, "traits">>;

/**
 * The filesystem `inner` with some methods replaced. What is not replaced goes through; an optional method that `inner`
 * lacks stays absent even when `overrides` has it, so a layer can't pretend a capability.
 */
export function forward<F extends Fs>(inner: F, overrides: Overrides): Wrapped<F> {
  const outer: Record<string, unknown> = {};
  for (const name of [...FS_METHODS, ...OPTIONAL_METHODS]) {
    const method: unknown = Reflect.get(inner, name);
    if (typeof method !== "function") continue;
    const replaced: unknown = overrides[name];
    outer[name] = typeof replaced === "function" ? replaced.bind(overrides) : method.bind(inner);
  }
  const traits: unknown = Reflect.get(inner, "traits");
  if (traits !== undefined) outer.traits = traits;
  return outer as unknown as Wrapped<F>;
}

/** `stack(backend, a, b)`: calls meet `b` first, then `a`, then the backend. */
export function stack<F extends Fs>(backend: F, ...layers: readonly Layer[]): Wrapped<F> {
  let top: Wrapped<F> = forward(backend, {});
  // Each layer gives back the type it takes; the compiler can't see that Wrapped<Wrapped<F>> is Wrapped<F>.
  for (const layer of layers) top = layer(top) as Wrapped<F>;
  return top;
}
