/** The memory backend passes the suite. */
import { openMemoryBackend } from "../../backends/memory/backend.ts";
import { testBackend } from "./backend.ts";

testBackend("memory", () =>
  Promise.resolve({
    traits: openMemoryBackend().traits,
    open: () => Promise.resolve({ fs: openMemoryBackend(), dispose: () => Promise.resolve() }),
  }));
