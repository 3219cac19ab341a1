/** `anyfs completions`: prints the script that makes a shell complete our commands and flags. */
import { Argument } from "@commander-js/extra-typings";
import { script } from "@bomb.sh/tab";
import type { CommandModule, Start } from "./module.ts";
import { example } from "./example.ts";

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .addArgument(new Argument("<shell>", "which shell").choices(["bash", "zsh", "fish"] as const))
      .action((shell) =>
        start(() => {
          script(shell, "anyfs", "anyfs");
          return Promise.resolve();
        })
      );
    example(
      command,
      "source <(anyfs completions bash)",
      "Completion in this shell; put the line into ~/.bashrc to keep it.",
    );
  },
};
