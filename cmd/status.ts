/** `anyfs status`: the daemon, its tiers, write-ahead log, cache and origins. */
import { showDuration, showSize } from "../core/config/units.ts";
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

async function showStatus(context: Context): Promise<void> {
  await withRemote(context, async (tree) => {
    const status = await tree.getJson("/v1/status", { signal: context.signal }) as Status;
    context.out.data({ url: tree.http.url, ...status }, () => {
      const { style } = context.out;
      const size = (bytes: number | null) => bytes === null ? "-" : showSize(bytes);
      const lines = [
        `server   ${tree.http.url}, version ${status.version}, up ${showDuration(status.uptime_secs * 1000)}, ` +
        `${status.clients} ${status.clients === 1 ? "client" : "clients"}`,
        `tree     ${status.tree.nodes} nodes, ${showSize(status.tree.bytes)}`,
        ...status.tiers.map((tier) =>
          `tier     ${tier.name.padEnd(5)} ${tier.healthy ? style.green("ok") : style.red("away")}  ${
            size(tier.bytes)
          } used, ${size(tier.free)} free, watermarks ${size(tier.low_watermark)} to ${
            size(tier.high_watermark)
          }, ${tier.place}${tier.healthy || tier.last_error === null ? "" : `: ${tier.last_error}`}`
        ),
        `wal      ${status.wal.entries} entries, ${showSize(status.wal.bytes)} to upload`,
      ];
      return lines.join("\n") + "\n";
    });
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command.action(() => start(showStatus));
    example(
      command,
      "anyfs status",
      "Bytes, watermarks and health of every tier, and what still waits to be uploaded.",
    );
  },
};
