/** `anyfs devices`: the clients the server knows. */
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import type { CommandModule, Start } from "./module.ts";
import { withRemote } from "./remote.ts";
import { printable } from "../core/observe/style.ts";

interface Device {
  readonly number: number;
  readonly id: string;
  readonly host: string;
  readonly connected: boolean;
  readonly first_seen: string;
  readonly last_seen: string;
}
const COLUMNS = [
  { title: "NO", align: "right" },
  { title: "HOST" },
  { title: "STATE" },
  { title: "LAST SEEN" },
  { title: "ID" },
] as const;

async function list(context: Context): Promise<void> {
  await withRemote(context, async (tree) => {
    const { devices } = await tree.getJson("/v1/devices", { signal: context.signal }) as { devices: Device[] };
    context.out.table(devices, COLUMNS, (device) => [
      String(device.number),
      printable(device.host),
      device.connected ? "connected" : "away",
      device.last_seen,
      device.id,
    ]);
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command.action(() => start(list));
    example(command, "anyfs devices", "Every client the server has met, and whether it is connected.");
  },
};
