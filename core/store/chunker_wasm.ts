/** The chunker in WebAssembly (chunker.as.ts): twice as fast as the TypeScript one, same cuts. */
import { type Chunker, gearTable, maxChunkCount } from "./chunker.ts";
import { CHUNKER_WASM } from "./chunker_wasm_bytes.ts";

interface ChunkerExports {
  readonly memory: WebAssembly.Memory;
  cut(offset: number, available: number, final: boolean): number;
  cutAll(offset: number, available: number, final: boolean, out: number): number;
}

const PAGE = 65536;
/** The first page holds the gear table and the compiler's own data; everything of ours comes after it. */
const BASE = PAGE;
/** What is copied in at a time when the bytes are not in the workspace. */
const WINDOW = 4 * 1024 * 1024;

export class WasmChunker implements Chunker {
  readonly #wasm: ChunkerExports;

  /** Throws when this runtime can't compile or run WebAssembly. */
  constructor() {
    const module = new WebAssembly.Module(Uint8Array.fromBase64(CHUNKER_WASM));
    this.#wasm = new WebAssembly.Instance(module, {}).exports as unknown as ChunkerExports;
    new Int32Array(this.#wasm.memory.buffer, 0, 256).set(gearTable());
  }

  cut(bytes: Uint8Array, offset: number, end: number, final: boolean): number {
    if (bytes.buffer === this.#wasm.memory.buffer) {
      return this.#wasm.cut(bytes.byteOffset + offset, end - offset, final);
    }
    // A cut needs MAX_CHUNK bytes at most; WINDOW is more.
    const length = Math.min(end - offset, WINDOW);
    this.#place(bytes.subarray(offset, offset + length), 0);
    return this.#wasm.cut(BASE, length, final && offset + length === end);
  }

  cutAll(bytes: Uint8Array, offset: number, end: number, final: boolean): Uint32Array<ArrayBuffer> {
    if (bytes.buffer === this.#wasm.memory.buffer) {
      return this.#cutPlaced(bytes.byteOffset + offset, end - offset, final).slice();
    }
    if (end - offset <= WINDOW) {
      this.#place(bytes.subarray(offset, end), WINDOW);
      return this.#cutPlaced(BASE, end - offset, final).slice();
    }
    const all = new Uint32Array(maxChunkCount(end - offset));
    let count = 0;
    for (let at = offset; at < end;) {
      const length = Math.min(end - at, WINDOW);
      this.#place(bytes.subarray(at, at + length), WINDOW);
      const lengths = this.#cutPlaced(BASE, length, final && at + length === end);
      all.set(lengths, count);
      count += lengths.length;
      const before = at;
      for (const one of lengths) at += one;
      if (at === before) break;
    }
    return all.slice(0, count);
  }

  workspace(length: number): Uint8Array<ArrayBuffer> {
    // The table of cuts goes behind the workspace (see #cutPlaced).
    this.#grow(BASE + length + 4 * maxChunkCount(length) + 8);
    return new Uint8Array(this.#wasm.memory.buffer as ArrayBuffer, BASE, length);
  }

  #grow(size: number): void {
    const missing = size - this.#wasm.memory.buffer.byteLength;
    if (missing > 0) this.#wasm.memory.grow(Math.ceil(missing / PAGE));
  }

  #place(bytes: Uint8Array, reserve: number): void {
    this.#grow(BASE + Math.max(bytes.length, reserve) + 4 * maxChunkCount(Math.max(bytes.length, reserve)) + 8);
    new Uint8Array(this.#wasm.memory.buffer).set(bytes, BASE);
  }

  /** The cuts of bytes that are in memory already; the result is a view into that memory. */
  #cutPlaced(offset: number, length: number, final: boolean): Uint32Array {
    const size = this.#wasm.memory.buffer.byteLength;
    const room = 4 * maxChunkCount(length);
    const out = size - room - (size - room) % 4;
    const count = this.#wasm.cutAll(offset, length, final, out);
    return new Uint32Array(this.#wasm.memory.buffer, out, count);
  }
}
