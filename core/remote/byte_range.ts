/** The Range header (RFC 9110, 14.2): one range of bytes; more than one, or another unit, is answered with the whole. */

export type ByteRange =
  | { readonly kind: "whole" }
  | { readonly kind: "part"; readonly offset: number; readonly length: number }
  | { readonly kind: "unsatisfiable" };

/** `size` in bytes. */
export function parseRange(header: string | null, size: number): ByteRange {
  if (header === null) return { kind: "whole" };
  const match = /^bytes *= *(\d*) *- *(\d*) *$/i.exec(header.trim());
  if (match === null) return { kind: "whole" };
  const [, first = "", last = ""] = match;
  if (first === "" && last === "") return { kind: "whole" };
  if (first === "") {
    const suffix = Math.min(Number(last), size);
    if (suffix === 0) return { kind: "unsatisfiable" };
    return { kind: "part", offset: size - suffix, length: suffix };
  }
  const offset = Number(first);
  const end = last === "" ? Infinity : Number(last);
  if (end < offset) return { kind: "whole" };
  if (offset >= size) return { kind: "unsatisfiable" };
  return { kind: "part", offset, length: Math.min(end, size - 1) - offset + 1 };
}
