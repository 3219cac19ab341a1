/** `anyfs status`: the daemon, its tiers, write-ahead log, cache and origins. */
import { showDuration, showSize } from "../core/config/units.ts";
import { printable } from "../core/observe/style.ts";
import { anyMounts, CACHE_DIR, type MountOptions } from "./local_mounts.ts";
import { withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";

interface Status {
  readonly version: string;
  readonly uptime_secs: number;
  readonly tree: { readonly nodes: number; readonly bytes: number };
  readonly tiers: readonly {
    readonly name: string;
    readonly place: string;
    readonly bytes: number;
    readonly high_watermark: number | null;
    readonly low_watermark: number | null;
    readonly healthy: boolean;
    readonly last_error: string | null;
    readonly free: number | null;
  }[];
  readonly wal: { readonly entries: number; readonly bytes: number };
  readonly clients: number;
}

/** A mount of this machine, as its control socket tells. */
interface MountStatus {
  readonly mode: string;
  readonly reason: string | null;
  readonly stopped: string | null;
  readonly pending: { readonly records: number; readonly bytes: number };
  readonly blocked: { readonly message: string } | null;
  readonly conflicts: number;
}
type Mount = MountStatus & { readonly dir: string; readonly url: string };

function mountLines({ dir, mode, reason, stopped, pending, blocked, conflicts }: Mount): string[] {
  const lines = [
    `mount    ${dir} ${mode}${
      reason === null || stopped !== null ? "" : ` (${printable(reason)})`
    }, ${pending.records} ` +
    `changes (${showSize(pending.bytes)}) to deliver, ${conflicts} conflicts to settle`,
  ];
  if (stopped !== null) lines.push(`         stopped: ${printable(stopped)}`);
  if (blocked !== null) lines.push(`         waits: ${printable(blocked.message)}`);
  return lines;
}

async function showStatus(context: Context, options: MountOptions): Promise<void> {
  const mounts: Mount[] = [];
  for (const mount of await anyMounts(context, options)) {
    mounts.push({ dir: mount.dir, url: mount.url, ...await mount.call("status") as MountStatus });
  }
  const { style } = context.out;
  const size = (bytes: number | null) => bytes === null ? "-" : showSize(bytes);
  const local = mounts.flatMap(mountLines);
  let server: Status & { readonly url: string };
  try {
    server = await withRemote(context, async (tree) => {
      const status = await tree.getJson("/v1/status", { signal: context.signal }) as Status;
      return { url: tree.http.url, ...status };
    });
  } catch (error) {
    // What is here is told also when the server is away.
    if (mounts.length > 0) context.out.data({ mounts }, () => local.join("\n") + "\n");
    throw error;
  }
  context.out.data({ ...server, mounts }, () => {
    const lines = [
      `server   ${server.url}, version ${server.version}, up ${showDuration(server.uptime_secs * 1000)}, ` +
      `${server.clients} ${server.clients === 1 ? "client" : "clients"}`,
      `tree     ${server.tree.nodes} nodes, ${showSize(server.tree.bytes)}`,
      ...server.tiers.map((tier) =>
        `tier     ${tier.name.padEnd(5)} ${tier.healthy ? style.green("ok") : style.red("away")}  ${
          size(tier.bytes)
        } used, ${size(tier.free)} free, watermarks ${size(tier.low_watermark)} to ${
          size(tier.high_watermark)
        }, ${tier.place}${tier.healthy || tier.last_error === null ? "" : `: ${tier.last_error}`}`
      ),
      `wal      ${server.wal.entries} entries, ${showSize(server.wal.bytes)} to upload`,
      ...local,
    ];
    return lines.join("\n") + "\n";
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command.option(...CACHE_DIR).action((options) => start((context) => showStatus(context, options)));
    example(
      command,
      "anyfs status",
      "Bytes, watermarks and health of every tier, and what still waits to be uploaded.",
    );
  },
};
