/** The memory backend passes the suites. */
import { openMemoryBackend } from "../../backends/memory/backend.ts";
import { testBackend } from "./backend.ts";
import { testFileStorage } from "./file_storage.ts";

const factory = {
  traits: openMemoryBackend().traits,
  open: () => Promise.resolve({ fs: openMemoryBackend(), dispose: () => Promise.resolve() }),
};
testBackend("memory", () => Promise.resolve(factory));
testFileStorage("memory", () => Promise.resolve(factory));
