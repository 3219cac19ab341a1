/** `anyfs online` and `anyfs offline`: whether the mounts of this machine may use the network. */
import type { CommandModule, Start } from "./module.ts";
import { example } from "./example.ts";
import { CACHE_DIR, localMounts } from "./local_mounts.ts";

function module(method: "online" | "offline", text: string): CommandModule {
  return {
    configure(command, start: Start) {
      command.argument("[dir]", "only the mount at this folder").option(...CACHE_DIR)
        .action((dir, options) =>
          start(async (context) => {
            for (
              const mount of await localMounts(context, { ...options, ...(dir === undefined ? {} : { mount: dir }) })
            ) {
              const { mode } = await mount.call(method) as { mode: string };
              context.out.item({ mount: mount.dir, mode }, () => `${mount.dir}: ${mode}`);
            }
          })
        );
      example(command, `anyfs ${method} ~/AnyFS`, text);
    },
  };
}
export const onlineCommand = module("online", "Connects again, for example after mount --offline.");
export const offlineCommand = module("offline", "Works with what is here and does not try to connect.");
