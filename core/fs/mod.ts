/** The filesystem contract: what backends, layers, the mount and the commands share. */
export * from "./capability.ts";
export * from "./contract.ts";
export * from "./error.ts";
export * from "./failure.ts";
export * from "./file_storage.ts";
export * from "./file_writer.ts";
export * from "./names.ts";
export * from "./object_store.ts";
export * from "./path.ts";
export * from "./path_resolver.ts";
export * from "./serial.ts";
export * from "./stack.ts";
export * from "./stat.ts";
