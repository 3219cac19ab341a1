/**
 * Names as strings without loss: a Linux name is any bytes but NUL and `/`; a byte that is not part of valid UTF-8
 * becomes the lone surrogate U+DC00+byte (PEP 383's surrogateescape), so every name survives a round trip.
 */
import { Buffer } from "node:buffer";
import { FsError } from "./error.ts";

const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Longest name in bytes (linux/limits.h NAME_MAX). */
export const NAME_MAX = 255;
/** Longest path in bytes that a path operation accepts (linux/limits.h PATH_MAX). */
export const PATH_MAX = 4096;

function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) return 2;
  if (lead >= 0xe0 && lead < 0xf0) return 3;
  if (lead >= 0xf0 && lead < 0xf5) return 4;
  return 0;
}

/** Bytes [start, end) as a name. ASCII and valid UTF-8 take the fast path. */
export function decodeName(bytes: Uint8Array, start = 0, end = bytes.length): string {
  let ascii = true;
  for (let i = start; i < end; i++) {
    if ((bytes[i] ?? 0) >= 0x80) {
      ascii = false;
      break;
    }
  }
  if (ascii) {
    return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");
  }
  try {
    return strict.decode(bytes.subarray(start, end));
  } catch {
    return decodeEscaped(bytes, start, end);
  }
}

function decodeEscaped(bytes: Uint8Array, start: number, end: number): string {
  let out = "";
  let i = start;
  while (i < end) {
    const byte = bytes[i] ?? 0;
    const length = sequenceLength(byte);
    if (length > 0 && i + length <= end) {
      try {
        out += strict.decode(bytes.subarray(i, i + length));
        i += length;
        continue;
      } catch {
        // Falls through: this byte starts no valid sequence.
      }
    }
    out += String.fromCharCode(0xdc00 + byte);
    i++;
  }
  return out;
}

/** A name as bytes; the inverse of `decodeName`. */
export function encodeName(name: string): Uint8Array {
  if (name.isWellFormed()) return encoder.encode(name);
  const parts: number[] = [];
  for (let i = 0; i < name.length; i++) {
    const unit = name.charCodeAt(i);
    const next = i + 1 < name.length ? name.charCodeAt(i + 1) : 0;
    if (unit >= 0xd800 && unit < 0xdc00 && (next & 0xfc00) === 0xdc00) {
      for (const byte of encoder.encode(name.slice(i, i + 2))) parts.push(byte);
      i++;
    } else if (unit >= 0xdc80 && unit <= 0xdcff) {
      parts.push(unit - 0xdc00);
    } else {
      for (const byte of encoder.encode(name[i])) parts.push(byte);
    }
  }
  return Uint8Array.from(parts);
}

/** Length of a name in bytes. */
export function nameByteLength(name: string): number {
  let bytes = 0;
  for (let i = 0; i < name.length; i++) {
    const unit = name.charCodeAt(i);
    if (unit < 0x80) bytes += 1;
    else if (unit < 0x800) bytes += 2;
    else if (unit >= 0xd800 && unit < 0xdc00) {
      bytes += 4;
      i++;
    } else if (unit >= 0xdc80 && unit <= 0xdcff) bytes += 1;
    else bytes += 3;
  }
  return bytes;
}

/**
 * Checks one name (a path component).
 * Throws `invalid_input` for an empty name, `.`, `..`, or one with NUL or `/`; `name_too_long` over 255 bytes.
 */
export function checkName(name: string): void {
  if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
    throw new FsError("invalid_input", `${JSON.stringify(name)} is not a file name`, { path: name });
  }
  if (name.length > 63 && nameByteLength(name) > NAME_MAX) {
    throw new FsError("name_too_long", `the name is longer than ${NAME_MAX} bytes: ${name.slice(0, 40)}...`, {
      path: name,
      limit: NAME_MAX,
    });
  }
}
