/** `anyfs status`: the daemon, its tiers, write-ahead log, cache and origins. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

function showStatus(_context: Context): Promise<void> {
  return Promise.reject(notBuilt("status"));
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
