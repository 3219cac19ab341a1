/** `anyfs config`: writes, checks and shows the configuration. */
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { checkConfig, findConfigFile, printProblem, readConfigText } from "../core/config/config.ts";
import { annotatedDefault } from "../core/config/annotated.ts";
import { configFileCandidates, resolvePath } from "../core/config/places.ts";
import { configRows, redact } from "../core/config/show.ts";
import { FsError } from "../core/fs/error.ts";
import { info, makeFolder, writeFile } from "../core/platform/files.ts";
import { currentFolder, getEnv } from "../core/platform/process.ts";
import { example } from "./example.ts";

/** `-` is standard output. */
async function init(context: Context, named: string | undefined, options: { readonly force?: true }): Promise<void> {
  if (named === "-") {
    context.out.text(annotatedDefault());
    return;
  }
  const given = named ?? context.globals.config ?? getEnv("ANYFS_CONFIG") ?? configFileCandidates(getEnv)[0];
  if (given === undefined || given === "") {
    throw new FsError("invalid_input", "HOME is not set; name the file to write");
  }
  const file = resolvePath(given, currentFolder(), getEnv);
  if (options.force === undefined && await info(file) !== null) {
    throw new FsError("already_exists", `${file} exists; remove it, or write over it with --force`, { path: file });
  }
  await makeFolder(file.slice(0, Math.max(1, file.lastIndexOf("/"))));
  await writeFile(file, annotatedDefault());
  context.out.data({ file }, () => `wrote ${file}\n`);
}

async function check(context: Context, named: string | undefined): Promise<number> {
  const file = await findConfigFile(named ?? context.globals.config, getEnv, currentFolder());
  if (file === null) {
    context.out.data({ file: null, problems: [] }, () => "no configuration file: the defaults hold\n");
    return 0;
  }
  const text = await readConfigText(file);
  const { problems } = checkConfig(text, file, getEnv);
  if (context.out.json) context.out.data({ file, problems }, () => "");
  else if (problems.length === 0) context.out.text(`${file}: fine\n`);
  else for (const problem of problems) context.out.failure(printProblem(file, problem));
  return problems.length === 0 ? 0 : 2;
}

async function show(context: Context): Promise<void> {
  const config = await context.config();
  context.out.data(redact(config), () => {
    const source = config.file ?? "no file, defaults";
    const rows = configRows(config).filter(([name]) => name !== "file");
    const width = Math.max(...rows.map(([name]) => name.length));
    return `# ${source}\n${rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("")}`;
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    const write = command.command("init").description("write a file with every key and a comment on it")
      .argument(
        "[file]",
        "where (default: --config, ANYFS_CONFIG or ~/.config/anyfs/config.toml); - for standard output",
      )
      .option("--force", "write over an existing file")
      .action((file, options) => start((context) => init(context, file, options)));
    example(write, "anyfs config init", "Writes ~/.config/anyfs/config.toml to begin with.");
    const look = command.command("check").description(
      "name everything wrong by line and key; exit code 2 when there is",
    )
      .argument("[file]", "another file than the one in use")
      .action((file) => start((context) => check(context, file)));
    example(look, "anyfs config check", "Says what is wrong with the file, or that it is fine.");
    const print = command.command("show").description("what holds, with secrets hidden")
      .action(() => start(show));
    example(print, "anyfs config show --json", "The whole configuration, defaults included, as JSON.");
    example(command, "anyfs config check", "Checks the configuration file in use.");
  },
};
