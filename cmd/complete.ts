/** `anyfs complete -- WORDS`: what the completion scripts call; prints what may come next. */
import tab from "@bomb.sh/tab/commander";
import type { Command } from "commander";
import type { CommandModule } from "./module.ts";

/** Prints candidates in the form the scripts of @bomb.sh/tab read. */
async function complete(words: readonly string[]): Promise<void> {
  const { createProgram } = await import("./program.ts");
  const program = await createProgram("all", () => () => Promise.resolve());
  // The same class; only its type says more about arguments and options.
  const root = tab(program as unknown as Command);
  root.commands.delete("complete");
  for (const option of program.options) {
    if (option.long === undefined || option.long === null) continue;
    const choices = option.argChoices ?? [];
    for (const command of root.commands.values()) {
      const name = option.long.slice(2);
      if (option.isBoolean() || option.long === "--version") command.option(name, option.description);
      else command.option(name, option.description, (add) => choices.forEach((choice) => add(choice, "")));
    }
  }
  root.parse([...words]);
}

export const command: CommandModule = {
  configure(command) {
    command.argument("[words...]").allowUnknownOption().helpOption(false).action((words) => complete(words));
  },
};
