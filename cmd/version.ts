/** `anyfs version`: the same line as `anyfs --version`, or more as JSON. */
import { commit, VERSION, versionLine } from "../core/config/version.ts";
import type { CommandModule, Start } from "./module.ts";
import { example } from "./example.ts";

export const command: CommandModule = {
  configure(command, start: Start) {
    command.action(() =>
      start((context) => {
        context.out.data({ version: VERSION, commit: commit() }, () => `${versionLine()}\n`);
        return Promise.resolve();
      })
    );
    example(command, "anyfs version --json", "Version and commit as JSON.");
  },
};
