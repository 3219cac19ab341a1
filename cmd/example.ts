/** The example at the end of a command's help. */

interface WithHelpText {
  addHelpText(position: "after", text: string): unknown;
}

/** One line to copy, and what it does. */
export function example(command: WithHelpText, line: string, does: string): void {
  command.addHelpText("after", `\nExample:\n  ${line}\n      ${does}`);
}
