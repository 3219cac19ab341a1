/** The places of the server's tiers, opened from the configuration: what is merely away does not stop the server. */
import { openObjectStore } from "../backends/registry.ts";
import type { Config, StoreConfig } from "../core/config/config.ts";
import { Errno, FsError, toFsError } from "../core/fs/error.ts";
import type { ObjectInfo, ObjectRange, ObjectSource, ObjectStore, StoreSpace } from "../core/fs/object_store.ts";
import type { ServerCoreConfig, TierConfig } from "../core/indexed/open_core.ts";
import { systemClock } from "../core/platform/clock.ts";
import { within } from "../core/tiers/health.ts";
import { prepareFirstStart } from "./first_start.ts";

/** How long the start waits for a tier that may be away. */
const CHECK_MS = 5_000;

/** A store that could not be opened yet is opened at its next use. */
class LateStore implements ObjectStore {
  readonly name: string;
  readonly #open: () => Promise<ObjectStore>;
  #store: Promise<ObjectStore> | null = null;
  /** One that is still being opened at the end is not waited for. */
  #opened: ObjectStore | null = null;

  constructor(name: string, open: () => Promise<ObjectStore>) {
    this.name = name;
    this.#open = open;
  }
  async #now(): Promise<ObjectStore> {
    this.#store ??= this.#open();
    try {
      return this.#opened = await this.#store;
    } catch (error) {
      this.#store = null;
      throw error;
    }
  }
  async put(key: string, source: ObjectSource | Uint8Array, options = {}): Promise<void> {
    await (await this.#now()).put(key, source, options);
  }
  async get(key: string, options: ObjectRange = {}): Promise<Uint8Array<ArrayBuffer>> {
    return await (await this.#now()).get(key, options);
  }
  getStream(key: string, options = {}): ReadableStream<Uint8Array> {
    const opened = this.#now();
    return ReadableStream.from((async function* () {
      yield* (await opened).getStream(key, options);
    })());
  }
  async head(key: string, options = {}): Promise<ObjectInfo | null> {
    return await (await this.#now()).head(key, options);
  }
  async delete(key: string, options = {}): Promise<void> {
    await (await this.#now()).delete(key, options);
  }
  async *list(prefix: string, after?: string, options = {}): AsyncGenerator<ObjectInfo> {
    yield* (await this.#now()).list(prefix, after, options);
  }
  async check(options = {}): Promise<void> {
    await (await this.#now()).check(options);
  }
  async space(options = {}): Promise<StoreSpace | null> {
    return await (await this.#now()).space(options);
  }
  async close(): Promise<void> {
    await this.#opened?.close();
  }
}

function placeOf(store: StoreConfig): string {
  switch (store.type) {
    case "local":
      return store.path;
    case "s3":
      return `s3://${store.bucket}/${store.prefix}${store.endpoint === undefined ? "" : ` at ${store.endpoint}`}`;
    default:
      return store.type;
  }
}

function open(store: StoreConfig, section: string): Promise<ObjectStore> {
  switch (store.type) {
    case "local":
      return openObjectStore("local", { folder: store.path, name: store.path });
    case "memory":
      return openObjectStore("memory", {});
    case "s3":
      return openObjectStore("s3", {
        bucket: store.bucket,
        prefix: store.prefix,
        section,
        forcePathStyle: store.pathStyle,
        ...(store.endpoint !== undefined && { endpoint: store.endpoint }),
        ...(store.region !== undefined && { region: store.region }),
        ...(store.profile !== undefined && { profile: store.profile }),
      });
    default:
      throw new FsError(
        "not_supported",
        `${section}: a tier on ${store.type} is not built yet; use a local path or S3`,
        { operation: "serve" },
      );
  }
}

export interface OpenedTiers {
  readonly tiers: ServerCoreConfig["tiers"];
  /** Closes all stores. */
  close(): Promise<void>;
}

/**
 * Throws invalid_input for a tier that answers and refuses (no such bucket, wrong credentials) and for a local tier that
 * is missing though it was there before.
 */
export async function openTiers(config: Config, warn: (message: string) => void): Promise<OpenedTiers> {
  const stores: ObjectStore[] = [];
  const close = async () => {
    for (const store of stores) await store.close().catch(() => {});
  };
  try {
    const { local, nas, s3 } = config.tiers;
    await prepareFirstStart(config);
    const localStore = await openObjectStore("local", { folder: local.path, name: local.path });
    stores.push(localStore);
    const cold = async (name: "nas" | "s3", store: StoreConfig): Promise<TierConfig> => {
      const place = placeOf(store);
      const late = new LateStore(place, () => open(store, `[tiers.${name}]`));
      stores.push(late);
      await meet(late, name, place, warn);
      return { store: late, place };
    };
    return {
      tiers: {
        local: {
          store: localStore,
          path: local.path,
          place: local.path,
          highWatermark: local.watermarks?.high ?? null,
          lowWatermark: local.watermarks?.low ?? null,
        },
        ...(nas !== null && {
          nas: {
            ...await cold("nas", nas.store),
            highWatermark: nas.watermarks?.high ?? null,
            lowWatermark: nas.watermarks?.low ?? null,
          },
        }),
        ...(s3 !== null && { s3: await cold("s3", s3.store) }),
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A tier that is away is met again later; one that refuses us is a mistake in the configuration. */
async function meet(store: ObjectStore, name: string, place: string, warn: (message: string) => void): Promise<void> {
  try {
    await within(systemClock, CHECK_MS, `tier ${name}`, (signal) => store.check({ signal }));
  } catch (error) {
    const cause = toFsError(error);
    const away = ["unavailable", "timeout", "cancelled"].includes(cause.code) && cause.errno !== Errno.ENXIO;
    if (!away) {
      throw new FsError("invalid_input", cause.message, { operation: "serve", path: place, cause });
    }
    const reason = cause.code === "timeout" ? `no answer within ${CHECK_MS / 1000} s` : cause.message;
    warn(`tier ${name} (${place}) can't be reached now: ${reason}; what belongs there waits in the write-ahead log`);
  }
}
