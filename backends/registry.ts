/** The backends by name. Each is loaded at first use, so that nobody pays for what he doesn't use. */
import type { Backend } from "../core/fs/contract.ts";
import type { ObjectStore } from "../core/fs/object_store.ts";
import type { LocalBackendOptions } from "./local/backend.ts";
import type { LocalObjectStoreOptions } from "./local/object_store.ts";
import type { MemoryBackendOptions } from "./memory/backend.ts";
import type { MemoryObjectStoreOptions } from "./memory/object_store.ts";
import type { S3BackendOptions } from "./s3/backend.ts";
import type { S3ObjectStoreOptions } from "./s3/object_store.ts";

/** What each backend is opened with. */
export interface BackendOptions {
  readonly memory: MemoryBackendOptions;
  readonly local: LocalBackendOptions;
  readonly s3: S3BackendOptions;
}
export interface ObjectStoreOptions {
  readonly memory: MemoryObjectStoreOptions;
  readonly local: LocalObjectStoreOptions;
  readonly s3: S3ObjectStoreOptions;
}
export type BackendName = keyof BackendOptions;

const BACKENDS: { readonly [N in BackendName]: (options: BackendOptions[N]) => Promise<Backend> } = {
  memory: async (options) => (await import("./memory/backend.ts")).openMemoryBackend(options),
  local: async (options) => (await import("./local/backend.ts")).openLocalBackend(options),
  s3: async (options) => (await import("./s3/backend.ts")).openS3Backend(options),
};
const STORES: { readonly [N in BackendName]: (options: ObjectStoreOptions[N]) => Promise<ObjectStore> } = {
  memory: async (options) => (await import("./memory/object_store.ts")).openMemoryObjectStore(options),
  local: async (options) => (await import("./local/object_store.ts")).openLocalObjectStore(options),
  s3: async (options) => (await import("./s3/object_store.ts")).openS3ObjectStore(options),
};

export const BACKEND_NAMES: readonly BackendName[] = ["memory", "local", "s3"];

export function isBackendName(name: string): name is BackendName {
  return Object.hasOwn(BACKENDS, name);
}

/** Throws unavailable for a missing folder, invalid_input for bad settings; a network store is met at its first use. */
export function openBackend<N extends BackendName>(name: N, options: BackendOptions[N]): Promise<Backend> {
  return BACKENDS[name](options);
}

/** As openBackend, for the place of a tier. */
export function openObjectStore<N extends BackendName>(name: N, options: ObjectStoreOptions[N]): Promise<ObjectStore> {
  return STORES[name](options);
}
