/** Chooses the chunker: WebAssembly, else TypeScript. Both cut alike. */
import type { Chunker } from "./chunker.ts";
import { TsChunker } from "./chunker_ts.ts";
import { WasmChunker } from "./chunker_wasm.ts";

/** The fastest chunker that works here. */
export function createChunker(): Chunker {
  try {
    return new WasmChunker();
  } catch {
    return new TsChunker();
  }
}
