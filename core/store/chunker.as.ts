// The chunker in AssemblyScript: scripts/build_wasm.ts turns it into core/store/chunker_wasm_bytes.ts.
// @ts-nocheck: AssemblyScript only looks like TypeScript, its types (u32, u64) and load/store are its own.
// Memory: the gear table (256 u32) at 0, the bytes to cut wherever the caller puts them.

const MIN: u32 = 16384;
const AVG: u32 = 65536;
const MAX: u32 = 262144;
const MASK_BEFORE_AVG: u32 = 0x7fffe000;
const MASK_AFTER_AVG: u32 = 0x7ffe0000;

// @ts-ignore: decorator
function step(h: u32, byte: u64): u32 {
  return (h << 1) + load<u32>(<u32> byte << 2);
}

let state: u32 = 0;

// Position behind the first byte of [from, to) that meets the mask, or 0. Eight bytes a load, eight unrolled steps.
function scan(from: u32, to: u32, mask: u32): u32 {
  let h = state;
  let i = from;
  while (i + 8 <= to) {
    const w = load<u64>(i);
    h = step(h, w & 255);
    if ((h & mask) == 0) return i + 1;
    h = step(h, (w >> 8) & 255);
    if ((h & mask) == 0) return i + 2;
    h = step(h, (w >> 16) & 255);
    if ((h & mask) == 0) return i + 3;
    h = step(h, (w >> 24) & 255);
    if ((h & mask) == 0) return i + 4;
    h = step(h, (w >> 32) & 255);
    if ((h & mask) == 0) return i + 5;
    h = step(h, (w >> 40) & 255);
    if ((h & mask) == 0) return i + 6;
    h = step(h, (w >> 48) & 255);
    if ((h & mask) == 0) return i + 7;
    h = step(h, w >> 56);
    if ((h & mask) == 0) return i + 8;
    i += 8;
  }
  while (i < to) {
    h = step(h, load<u8>(i));
    if ((h & mask) == 0) return i + 1;
    i++;
  }
  state = h;
  return 0;
}

// Length of the first chunk of [offset, offset + available); 0: more bytes are needed (never when `final`).
export function cut(offset: u32, available: u32, final: bool): u32 {
  const undecided: u32 = final ? available : 0;
  if (available <= MIN) return undecided;
  const length = available < MAX ? available : MAX;
  const middle = offset + (length < AVG ? length : AVG);
  state = 0;
  let found = scan(offset + MIN, middle, MASK_BEFORE_AVG);
  if (found != 0) return found - offset;
  found = scan(middle, offset + length, MASK_AFTER_AVG);
  if (found != 0) return found - offset;
  return length == MAX ? MAX : undecided;
}

// Writes the lengths of all chunks of the region to `out` (u32 each) and returns their number.
export function cutAll(offset: u32, available: u32, final: bool, out: u32): u32 {
  let count: u32 = 0;
  while (available > 0) {
    const length = cut(offset, available, final);
    if (length == 0) break;
    store<u32>(out + (count << 2), length);
    count++;
    offset += length;
    available -= length;
  }
  return count;
}
