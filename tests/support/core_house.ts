/** CoreHouse: a ServerCore in a temporary folder, with slower tiers in memory that go wrong on command. For tests. */
import { FaultScript } from "../../backends/faulty/script.ts";
import { FaultyObjectStore } from "../../backends/faulty/object_store.ts";
import { LocalObjectStore } from "../../backends/local/object_store.ts";
import { MemoryObjectStore } from "../../backends/memory/object_store.ts";
import { type OpenServerCore, openServerCore, type ServerCoreConfig } from "../../core/indexed/open_core.ts";

type Settings = Omit<Partial<ServerCoreConfig>, "tiers" | "stateDir"> & {
  /** Slower tiers. @default none */
  readonly cold?: readonly ("nas" | "s3")[];
  /** Bytes of the hot tier's high and low watermark. */
  readonly watermarks?: readonly [high: number, low: number];
};

export class CoreHouse implements AsyncDisposable {
  readonly folder = Deno.makeTempDirSync({ prefix: "anyfs-core-" });
  readonly #settings: Settings;
  readonly #open: OpenServerCore[] = [];
  readonly log: string[] = [];
  readonly stores = { nas: new MemoryObjectStore({ name: "nas" }), s3: new MemoryObjectStore({ name: "s3" }) };
  readonly faults = { local: new FaultScript(), nas: new FaultScript(), s3: new FaultScript() };
  #copies = 0;

  constructor(settings: Settings = {}) {
    this.#settings = settings;
    Deno.mkdirSync(`${this.folder}/hot`);
  }

  /** The hot tier's folder of the house or of one of its copies. */
  hot(of = this.folder): string {
    return `${of}/hot`;
  }

  /** Opens the server on the house's own folder, or on a copy of it. */
  async open(of = this.folder, more: Settings = {}): Promise<OpenServerCore> {
    const { cold = [], watermarks, ...settings } = { ...this.#settings, ...more };
    const path = this.hot(of);
    const limits = watermarks === undefined ? {} : { highWatermark: watermarks[0], lowWatermark: watermarks[1] };
    const tier = (name: "nas" | "s3") => ({
      store: new FaultyObjectStore(this.stores[name], this.faults[name]),
      place: name,
    });
    const core = await openServerCore({
      reserveBytes: 1024 * 1024,
      log: (message) => void this.log.push(message),
      ...settings,
      stateDir: `${of}/state`,
      tiers: {
        local: {
          store: new FaultyObjectStore(new LocalObjectStore({ folder: path }), this.faults.local),
          path,
          place: path,
          ...limits,
        },
        ...(cold.includes("nas") ? { nas: tier("nas") } : {}),
        ...(cold.includes("s3") ? { s3: tier("s3") } : {}),
      },
    });
    this.#open.push(core);
    return core;
  }

  /** What a crash right now would leave: the files as they are, without closing anything. Returns the folder. */
  snapshot(): string {
    const copy = `${this.folder}/copy${++this.#copies}`;
    copyTree(`${this.folder}/state`, `${copy}/state`);
    copyTree(this.hot(), this.hot(copy));
    return copy;
  }

  /** Files of packs on the hot tier, sealed ones. */
  hotPacks(of = this.folder): string[] {
    const found: string[] = [];
    const packs = `${this.hot(of)}/packs`;
    try {
      for (const dir of Deno.readDirSync(packs)) {
        for (const file of Deno.readDirSync(`${packs}/${dir.name}`)) found.push(`${packs}/${dir.name}/${file.name}`);
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    return found.sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const script of Object.values(this.faults)) script.clear();
    for (const core of this.#open) await core.close().catch(() => {});
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Without giving way to anything else of this thread. */
function copyTree(from: string, to: string): void {
  Deno.mkdirSync(to, { recursive: true });
  for (const entry of Deno.readDirSync(from)) {
    const [source, target] = [`${from}/${entry.name}`, `${to}/${entry.name}`];
    try {
      if (entry.isDirectory) copyTree(source, target);
      else Deno.copyFileSync(source, target);
    } catch (error) {
      // Another thread has just removed or renamed it.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}
