/** The memory store passes the suite of ObjectStore. */
import { openMemoryObjectStore } from "../../backends/memory/object_store.ts";
import { testObjectStore } from "./object_store.ts";

testObjectStore("memory", () =>
  Promise.resolve({
    open: () => Promise.resolve({ store: openMemoryObjectStore(), dispose: () => Promise.resolve() }),
  }));
