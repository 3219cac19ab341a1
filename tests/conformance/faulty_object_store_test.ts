/** Without faults the faulty object store is as good as what it wraps. */
import { FaultyObjectStore } from "../../backends/faulty/object_store.ts";
import { FaultScript } from "../../backends/faulty/script.ts";
import { openMemoryObjectStore } from "../../backends/memory/object_store.ts";
import { testObjectStore } from "./object_store.ts";

testObjectStore("faulty without faults", () =>
  Promise.resolve({
    open: () =>
      Promise.resolve({
        store: new FaultyObjectStore(openMemoryObjectStore(), new FaultScript()),
        dispose: () => Promise.resolve(),
      }),
  }));
