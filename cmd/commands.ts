/** The table of commands: a line for the overview, and where the rest is loaded from when it is needed. */
import type { CommandModule } from "./module.ts";
import { notBuiltCommand } from "./not_built.ts";

export interface CommandRow {
  readonly name: string;
  readonly summary: string;
  readonly aliases?: readonly string[];
  /** Not in the overview. */
  readonly hidden?: true;
  load(): Promise<CommandModule>;
}

const unbuilt = (name: string) => () => Promise.resolve(notBuiltCommand(name));

/** Every import has a literal path, so that the executable contains it, and only the one that is used is run. */
export const COMMANDS: readonly CommandRow[] = [
  { name: "serve", summary: "run the daemon", load: async () => (await import("./serve.ts")).command },
  { name: "mount", summary: "show the tree as a folder", load: async () => (await import("./mount.ts")).command },
  {
    name: "unmount",
    summary: "end a mount, also a crashed one",
    aliases: ["umount"],
    load: async () => (await import("./unmount.ts")).command,
  },
  {
    name: "migrate",
    summary: "take existing data into the tree",
    load: async () => (await import("./migrate.ts")).command,
  },
  { name: "sync", summary: "make two folders alike (not built yet)", load: unbuilt("sync") },
  { name: "search", summary: "find files (not built yet)", load: unbuilt("search") },
  { name: "ls", summary: "list a folder", load: async () => (await import("./ls.ts")).command },
  { name: "cat", summary: "write files to standard output", load: async () => (await import("./cat.ts")).command },
  { name: "put", summary: "store a file", load: async () => (await import("./put.ts")).command },
  { name: "get", summary: "fetch a file", load: async () => (await import("./get.ts")).command },
  { name: "rm", summary: "remove", load: async () => (await import("./rm.ts")).command },
  { name: "mv", summary: "rename or move", load: async () => (await import("./mv.ts")).command },
  { name: "cp", summary: "copy", load: async () => (await import("./cp.ts")).command },
  { name: "mkdir", summary: "make folders", load: async () => (await import("./mkdir.ts")).command },
  { name: "ln", summary: "hard and symbolic links", load: async () => (await import("./ln.ts")).command },
  { name: "stat", summary: "all about a file", load: async () => (await import("./stat.ts")).command },
  { name: "status", summary: "daemon, tiers, log and cache", load: async () => (await import("./status.ts")).command },
  {
    name: "devices",
    summary: "the clients the server knows",
    load: async () => (await import("./devices.ts")).command,
  },
  { name: "token", summary: "make, list, revoke tokens", load: async () => (await import("./token.ts")).command },
  { name: "wal", summary: "what still has to reach a tier", load: async () => (await import("./wal.ts")).command },
  { name: "evict", summary: "one eviction pass", load: async () => (await import("./evict.ts")).command },
  { name: "cache", summary: "what mounts keep of the tree", load: async () => (await import("./cache.ts")).command },
  { name: "pin", summary: "keep a subtree on this machine", load: async () => (await import("./pin.ts")).command },
  { name: "unpin", summary: "no longer keep it", load: async () => (await import("./pin.ts")).unpinCommand },
  {
    name: "online",
    summary: "let mounts connect again",
    load: async () => (await import("./online.ts")).onlineCommand,
  },
  {
    name: "offline",
    summary: "let mounts work without the network",
    load: async () => (await import("./online.ts")).offlineCommand,
  },
  {
    name: "config",
    summary: "write, check or show the configuration",
    load: async () => (await import("./config.ts")).command,
  },
  {
    name: "completions",
    summary: "print completions for a shell",
    load: async () => (await import("./completions.ts")).command,
  },
  { name: "version", summary: "version and commit", load: async () => (await import("./version.ts")).command },
  {
    name: "complete",
    summary: "what the completion scripts call",
    hidden: true,
    load: async () => (await import("./complete.ts")).command,
  },
];

/** Promised, not there yet; not in the overview. */
const LATER = ["du", "tree", "origin", "scrub", "snapshot", "undelete"]
  .concat(
    ["collection", "shell", "doctor"],
  );

export const ALL_COMMANDS: readonly CommandRow[] = [
  ...COMMANDS,
  ...LATER.map((name): CommandRow => ({ name, summary: "not built yet", hidden: true, load: unbuilt(name) })),
];
