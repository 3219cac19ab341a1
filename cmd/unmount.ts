/** `anyfs unmount`: ends a mount, also one whose process has crashed. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import { notBuilt } from "./not_built.ts";

function unmount(_context: Context, _folder: string): Promise<void> {
  return Promise.reject(notBuilt("unmount"));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<dir>", "the folder it is mounted on")
      .action((dir) => start((context) => unmount(context, dir)));
    example(command, "anyfs unmount ~/AnyFS", "Waits for what is being written, then unmounts.");
  },
};
