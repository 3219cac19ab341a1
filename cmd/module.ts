/** What a command's file exports, and what its action is given. */
import type { Command } from "@commander-js/extra-typings";
import type { Context } from "./context.ts";

/**
 * Runs an action with a Context and turns its failure into one line and an exit code. The action's number, if it returns
 * one, is the exit code (6: done in part).
 */
export type Start = (action: (context: Context) => Promise<number | void>) => Promise<void>;

export interface CommandModule {
  /** Adds arguments, options, an example and the action to a command that has its name already. */
  readonly configure: (command: Command, start: Start) => void;
}
