/** The command tree: global flags, the table of commands, and how wrong usage is answered. */
import { Command, CommanderError, Option } from "@commander-js/extra-typings";
import { versionLine } from "../core/config/version.ts";
import { LEVELS } from "../core/observe/log.ts";
import { printable } from "../core/observe/style.ts";
import { print } from "../core/platform/process.ts";
import { ALL_COMMANDS } from "./commands.ts";
import { errorLine, runAction } from "./context.ts";
import { example } from "./example.ts";
import type { Start } from "./module.ts";

/** Exit code for wrong usage. */
const WRONG_USAGE = 2;

/** Global flags that take a value: the word after them is no command. */
const WITH_VALUE = /^--(config|server|token-file|log-level)$/;

/** The first word that is neither a flag nor a flag's value. */
function commandName(argv: readonly string[]): string | null {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? "";
    if (WITH_VALUE.test(word)) i++;
    else if (!word.startsWith("-")) return word;
  }
  return null;
}

/** commander's text as one line: `error: unknown option '--x'\n(Did you mean --y?)`. */
function usageLine(text: string): string {
  const line = text.trim().replace(/^error: /, "").replace(/\s*\n\s*/g, " ").replace(/\.(?= |$)/g, ";").replace(
    /;$/,
    "",
  );
  return `anyfs: ${printable(line)}\n`;
}

/**
 * The tree with the named command filled in, or with all of them ("all"): only what is used is loaded. `start` is what
 * their actions run through.
 */
export async function createProgram(which: string | null, start: (program: Command) => Start): Promise<Command> {
  const base = new Command("anyfs")
    .description("One file tree whose bytes live on several tiers: local disk, NAS and S3.")
    .version(versionLine(), "-V, --version", "print version and commit")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => print("stdout", text),
      writeErr: (text) => print("stderr", text),
      outputError: (text, write) => write(usageLine(text)),
    })
    .configureHelp({ showGlobalOptions: true, sortSubcommands: false })
    .showSuggestionAfterError();
  const program: Command = base;
  base
    .option("--config <file>", "configuration file")
    .option("--server <url>", "the server (default: ANYFS_URL, or one that is found)")
    .option("--token-file <file>", "file that holds the token")
    .addOption(new Option("--log-level <level>", "what is logged on standard error").choices(LEVELS))
    .option("--json", "print data as JSON")
    .option("--quiet", "no progress, no remarks");
  example(
    program,
    "anyfs serve & anyfs put notes.txt /notes.txt && anyfs ls -l /",
    "Starts the daemon and stores a file.",
  );
  for (const row of ALL_COMMANDS) {
    if (which === "all" && row.hidden) continue;
    const command = program.command(row.name, { hidden: row.hidden ?? false }).description(row.summary);
    for (const alias of row.aliases ?? []) command.alias(alias);
    const wanted = which === "all" || row.name === which || row.aliases?.includes(which ?? "");
    if (wanted) (await row.load()).configure(command, start(program));
  }
  return program;
}

/** Runs the command line (without the program's name). Returns the exit code; prints everything itself. */
export async function run(argv: readonly string[]): Promise<number> {
  let code = 0;
  const start = (program: Command): Start => async (action) => {
    code = await runAction(program.opts(), action);
  };
  try {
    const program = await createProgram(commandName(argv), start);
    await program.parseAsync([...argv], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : WRONG_USAGE;
    // Help goes to a pager or head like any other output.
    if (error instanceof Error && error.name === "BrokenPipe") return 0;
    print("stderr", errorLine(error));
    return 1;
  }
}
