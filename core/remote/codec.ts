/**
 * Codecs: how a value of the protocol looks in MessagePack, both ways. Decoding checks everything: what arrives from the
 * network has the shape the type promises, or is `invalid_input` that names the field.
 */
import { FsError } from "../fs/error.ts";
import { decodeName, encodeName, PATH_MAX } from "../fs/names.ts";

export interface Codec<T> {
  readonly encode: (value: T) => unknown;
  /** Throws invalid_input. */
  readonly decode: (value: unknown) => T;
}
/** A field that may be left out (never null). */
export interface OptionalField<T> {
  readonly optional: Codec<T>;
}

class WireError extends FsError {
  constructor(readonly where: string, readonly what: string) {
    super("invalid_input", `${where === "" ? "the message" : where}: ${what}`, { operation: "decode" });
  }
}

function wrong(expected: string, value: unknown): never {
  const got = value === null
    ? "nil"
    : value instanceof Uint8Array
    ? `${value.length} bytes`
    : Array.isArray(value)
    ? `a list of ${value.length}`
    : typeof value === "string"
    ? `the text ${JSON.stringify(value.slice(0, 40))}`
    : typeof value === "object"
    ? "a map"
    : String(value);
  throw new WireError("", `expected ${expected}, got ${got}`);
}

function within(error: unknown, step: string): never {
  if (!(error instanceof WireError)) throw error;
  throw new WireError(
    error.where === "" || error.where.startsWith("[") ? step + error.where : `${step}.${error.where}`,
    error.what,
  );
}

const same = (value: unknown): unknown => value;

/** A whole number in [min, max]. */
export function integer(min = 0, max = Number.MAX_SAFE_INTEGER): Codec<number> {
  return {
    encode: same,
    decode(value) {
      if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
        return wrong(`a whole number from ${min} to ${max}`, value);
      }
      return value;
    },
  };
}
export const boolean: Codec<boolean> = {
  encode: same,
  decode: (value) => typeof value === "boolean" ? value : wrong("true or false", value),
};
/** Well-formed text of at most `max` UTF-16 units. */
export function text(max: number): Codec<string> {
  return {
    encode: same,
    decode: (value) =>
      typeof value === "string" && value.length <= max && value.isWellFormed()
        ? value
        : wrong(`text of at most ${max} characters`, value),
  };
}
export function bytes(min: number, max: number): Codec<Uint8Array> {
  return {
    encode: same,
    decode: (value) =>
      value instanceof Uint8Array && value.length >= min && value.length <= max
        ? value
        : wrong(min === max ? `${min} bytes` : `${min} to ${max} bytes`, value),
  };
}
/** 64 hexadecimal digits, sent as 32 bytes. */
export const hexHash: Codec<string> = {
  encode: (value) => Uint8Array.fromHex(value),
  decode: (value) => value instanceof Uint8Array && value.length === 32 ? value.toHex() : wrong("32 bytes", value),
};
/** A name, a symlink's target or a name of an attribute: text when it is well-formed Unicode, else its bytes. */
export const wireName: Codec<string> = {
  encode: (value) => value.isWellFormed() ? value : encodeName(value),
  decode(value) {
    if (typeof value === "string" && value.length <= PATH_MAX && value.isWellFormed()) return value;
    if (value instanceof Uint8Array && value.length <= PATH_MAX) return decodeName(value);
    return wrong(`a name (text or bytes, at most ${PATH_MAX})`, value);
  },
};
export const nothing: Codec<null> = {
  encode: () => null,
  decode: (value) => value === null || value === undefined ? null : wrong("nil", value),
};
export function nullable<T>(inner: Codec<T>): Codec<T | null> {
  return {
    encode: (value) => value === null ? null : inner.encode(value),
    decode: (value) => value === null ? null : inner.decode(value),
  };
}
export function optional<T>(inner: Codec<T>): OptionalField<T> {
  return { optional: inner };
}
/** At most `max` of them. */
export function list<T>(inner: Codec<T>, max: number): Codec<T[]> & Codec<readonly T[]> {
  return {
    encode: (values: readonly T[]) => values.map(inner.encode),
    decode(value: unknown) {
      if (!Array.isArray(value) || value.length > max) return wrong(`a list of at most ${max}`, value);
      const out: T[] = new Array(value.length);
      for (let i = 0; i < value.length; i++) {
        try {
          out[i] = inner.decode(value[i]);
        } catch (error) {
          within(error, `[${i}]`);
        }
      }
      return out;
    },
  };
}
/** One of these texts. */
export function choice<const T extends string>(...values: readonly T[]): Codec<T> {
  const known = new Map<unknown, T>(values.map((value) => [value, value]));
  return { encode: same, decode: (value) => known.get(value) ?? wrong(`one of ${values.join(", ")}`, value) };
}

type IsOptional<T, K extends keyof T> = Record<never, never> extends Pick<T, K> ? true : false;
/** Every field of T needs its codec, the optional ones too: a new field can't be forgotten. */
export type Fields<T> = {
  readonly [K in keyof T]-?: IsOptional<T, K> extends true ? OptionalField<Exclude<T[K], undefined>> : Codec<T[K]>;
};

/** A map with exactly these fields; unknown ones are ignored, so that a newer peer can add some. */
export function record<T extends object>(fields: Fields<T>): Codec<T> {
  const entries: [string, Codec<unknown>, boolean][] = [];
  for (const [key, field] of Object.entries(fields) as [string, Codec<unknown> | OptionalField<unknown>][]) {
    entries.push("optional" in field ? [key, field.optional, true] : [key, field, false]);
  }
  return {
    encode(value) {
      const out: Record<string, unknown> = {};
      const from = value as Record<string, unknown>;
      for (const [key, codec, isOptional] of entries) {
        const field = from[key];
        if (isOptional && field === undefined) continue;
        out[key] = codec.encode(field);
      }
      return out;
    },
    decode(value) {
      if (value === null || typeof value !== "object" || Array.isArray(value) || value instanceof Uint8Array) {
        return wrong("a map", value);
      }
      const from = value as Record<string, unknown>;
      const out: Record<string, unknown> = {};
      for (const [key, codec, isOptional] of entries) {
        const field = from[key];
        if (isOptional && (field === undefined || !Object.hasOwn(from, key))) continue;
        try {
          out[key] = codec.decode(field);
        } catch (error) {
          within(error, key);
        }
      }
      return out as T;
    },
  };
}
/**
 * The fields in this order, as a list: for what is sent often. Optional ones come last, left out they are nil or missing;
 * so none of them is a field whose value may be null for another reason.
 */
export function tuple<T extends object>(order: readonly (keyof T & string)[], fields: Fields<T>): Codec<T> {
  const codecs = order.map((key): [string, Codec<unknown>, boolean] => {
    const field = fields[key] as Codec<unknown> | OptionalField<unknown>;
    return "optional" in field ? [key, field.optional, true] : [key, field, false];
  });
  const required = codecs.filter(([, , isOptional]) => !isOptional).length;
  return {
    encode: (value) =>
      codecs.map(([key, codec, isOptional]) => {
        const field = (value as Record<string, unknown>)[key];
        return isOptional && (field === undefined || field === null) ? null : codec.encode(field);
      }),
    decode(value) {
      if (!Array.isArray(value) || value.length < required) return wrong(`a list of ${required}`, value);
      const out: Record<string, unknown> = {};
      for (let i = 0; i < codecs.length; i++) {
        const [key, codec, isOptional] = codecs[i] ?? ["", nothing, true];
        if (isOptional && (value[i] === null || value[i] === undefined)) continue;
        try {
          out[key] = codec.decode(value[i]);
        } catch (error) {
          within(error, key);
        }
      }
      return out as T;
    },
  };
}
/** Maps told apart by their field `tag`. */
export function variants<T extends object, K extends keyof T & string>(
  tag: K,
  cases: { readonly [V in T[K] & string]: Codec<Extract<T, Record<K, V>>> },
): Codec<T> {
  const known = new Map(Object.entries(cases) as [string, Codec<T>][]);
  return {
    encode(value) {
      const codec = known.get(String(value[tag]));
      return codec === undefined ? wrong(`a known ${tag}`, value[tag]) : codec.encode(value);
    },
    decode(value) {
      if (value === null || typeof value !== "object") return wrong("a map", value);
      const name = (value as Record<string, unknown>)[tag];
      const codec = known.get(typeof name === "string" ? name : "");
      return codec === undefined ? wrong(`${tag}: one of ${[...known.keys()].join(", ")}`, name) : codec.decode(value);
    },
  };
}
