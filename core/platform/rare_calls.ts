/**
 * Functions of a C library that are called now and then. A function of `Deno.dlopen` gets machine code of its own for V8's
 * fast calls, which takes 0.2 to 0.3 ms when it is bound: a program with a hundred of them would spend 25 ms of its start on
 * that. One bound here takes 0.02 ms, and 2.5 µs more a call.
 */

type Calls<S extends Record<string, Deno.ForeignFunction>> = Deno.StaticForeignLibraryInterface<S>;

/**
 * Binds `symbols`, as `Deno.dlopen` takes them; for calls of a few µs and more that are no part of each request. errno stands
 * after a call as it does with `Deno.dlopen`. Throws when the library or a name in it is not there.
 */
export function bindRare<const S extends Record<string, Deno.ForeignFunction>>(library: string, symbols: S): Calls<S> {
  const names = Object.entries(symbols).map(([name, symbol]) => [name, symbol.name ?? name] as const);
  const places = Deno.dlopen(
    library,
    Object.fromEntries(names.map(([name, inLibrary]) => [name, { name: inLibrary, type: "pointer" } as const])),
  ).symbols as Record<string, Deno.PointerObject>;
  const calls: Record<string, (...args: never[]) => unknown> = {};
  for (const [name, symbol] of Object.entries(symbols)) {
    const place = places[name];
    if (place === undefined) throw new Error(`${library} has no ${name}`);
    const pointer = new Deno.UnsafeFnPointer(place as Deno.PointerObject<Deno.ForeignFunction>, symbol);
    calls[name] = (...args: never[]) => pointer.call(...args);
  }
  return calls as Calls<S>;
}
