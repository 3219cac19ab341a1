/** Commands that are part of the contract and not built yet: they say so and exit with 2. */
import { FsError } from "../core/fs/error.ts";
import type { CommandModule } from "./module.ts";

/** Thrown where a command's work isn't there yet. */
export function notBuilt(name: string): FsError {
  return new FsError("not_supported", `${name}: not built yet; the README says what works today`, { operation: name });
}

/** A command that takes any arguments and does nothing. */
export function notBuiltCommand(name: string): CommandModule {
  return {
    configure(command, start) {
      command.argument("[arguments...]").allowUnknownOption().action(() => start(() => Promise.reject(notBuilt(name))));
      command.addHelpText("after", `\nExample:\n  anyfs ${name}\n      Not built yet.`);
    },
  };
}
