/** Serves a filesystem that costs nothing but the protocol, for mount_bench: `deno run -A null_main.ts DIR null|memory`. */
import { mountFuse } from "../../fuse/mod.ts";
import { MemoryInodeFs } from "../support/memory_inode_fs.ts";
import { nullFs } from "./null_fs.ts";

const [dir = "", kind = "null"] = Deno.args;
const mount = await mountFuse({
  dir,
  fs: kind === "memory" ? new MemoryInodeFs() : nullFs(),
  fsName: `anyfs-bench-${kind}`,
  onError: (error, operation, ino) => console.error(`${operation} of ${ino}: ${error}`),
});
for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => void mount.abort());
console.log("ready");
await mount.ended;
Deno.exit(0);
