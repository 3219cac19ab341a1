/** `anyfs ls`: lists folders of the tree. */
import { type DirEntry, kindOf, type Stat } from "../core/fs/stat.ts";
import { displayWidth, printable } from "../core/observe/style.ts";
import { nodeJson, tierLetters } from "../core/remote/node_json.ts";
import type { RemoteBackend } from "../core/remote/remote_backend.ts";
import { nameOf } from "../core/remote/url_path.ts";
import { treePath } from "./arguments.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import type { CommandModule, Start } from "./module.ts";
import { childPath, withRemote } from "./remote.ts";

interface Options {
  /** One entry a line with kind, permissions, size, time and tiers. */
  readonly long?: true;
  /** Names that begin with a dot too. */
  readonly all?: true;
  readonly recursive?: true;
}

const KIND_LETTERS = { file: "-", directory: "d", symlink: "l", other: "?" } as const;

/** `drwxr-xr-x`, with s, S, t and T as ls(1) has them. */
export function modeText(mode: number): string {
  const triple = (shift: number, special: number, letter: string) => {
    const bits = (mode >> shift) & 7;
    const x = (bits & 1) !== 0;
    const last = (mode & special) === 0 ? (x ? "x" : "-") : x ? letter : letter.toUpperCase();
    return (bits & 4 ? "r" : "-") + (bits & 2 ? "w" : "-") + last;
  };
  return KIND_LETTERS[kindOf(mode)] + triple(6, 0o4000, "s") + triple(3, 0o2000, "s") + triple(0, 0o1000, "t");
}

/** Local day and minute. */
function timeOf(stat: Stat): string {
  const date = new Date(stat.mtimeSec * 1000);
  if (Number.isNaN(date.getTime())) return "?";
  const two = (n: number) => String(n).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${
    two(date.getMinutes())
  }`;
}

/** Sizes are printed in pages: a folder of any size takes bounded memory. Each page is aligned for itself. */
const PAGE = 1000;

async function printEntries(
  context: Context,
  tree: RemoteBackend,
  folder: string,
  entries: readonly DirEntry[],
  long: boolean,
): Promise<void> {
  const { out } = context;
  const rows = [];
  for (const { name, stat } of entries) {
    const path = childPath(folder, name);
    const target = long && kindOf(stat.mode) === "symlink"
      ? await tree.readLink(path, { signal: context.signal })
      : null;
    if (out.json) out.item(nodeJson(path, stat, target ?? undefined), () => "");
    else rows.push({ name, stat, target });
  }
  if (out.json || rows.length === 0) return;
  const show = (name: string, stat: Stat) => {
    const text = printable(name);
    return kindOf(stat.mode) === "directory" ? out.style.cyan(text) : text;
  };
  if (!long) {
    for (const { name, stat } of rows) out.text(`${show(name, stat)}\n`);
    return;
  }
  const cells = rows.map(({ stat }) => [String(stat.nlink), String(stat.uid), String(stat.gid), String(stat.size)]);
  const widths = [0, 1, 2, 3].map((i) => Math.max(...cells.map((row) => displayWidth(row[i] ?? ""))));
  rows.forEach(({ name, stat, target }, i) => {
    const numbers = (cells[i] ?? []).map((cell, column) => cell.padStart(widths[column] ?? 0)).join(" ");
    const arrow = target === null ? "" : ` -> ${printable(target)}`;
    const tiers = kindOf(stat.mode) === "file" ? tierLetters(stat.tiers) : "---";
    out.text(`${modeText(stat.mode)} ${numbers} ${timeOf(stat)} ${tiers} ${show(name, stat)}${arrow}\n`);
  });
}

async function list(context: Context, path: string, options: Options): Promise<void> {
  const long = options.long === true;
  await withRemote(context, async (tree) => {
    const { signal, out } = context;
    const stat = await tree.stat(path, { signal });
    if (kindOf(stat.mode) !== "directory") {
      await printEntries(
        context,
        tree,
        path.slice(0, path.lastIndexOf("/")) || "/",
        [{ name: nameOf(path), stat }],
        long,
      );
      return;
    }
    const visit = async (folder: string, first: boolean): Promise<void> => {
      if (options.recursive && !out.json) out.text(`${first ? "" : "\n"}${printable(folder)}:\n`);
      const below: string[] = [];
      let page: DirEntry[] = [];
      for await (const entry of tree.readDir(folder, { signal })) {
        if (options.all !== true && entry.name.startsWith(".") && !out.json) continue;
        if (options.recursive && kindOf(entry.stat.mode) === "directory") below.push(childPath(folder, entry.name));
        page.push(entry);
        if (page.length < PAGE) continue;
        await printEntries(context, tree, folder, page, long);
        page = [];
      }
      await printEntries(context, tree, folder, page, long);
      for (const each of below) await visit(each, false);
    };
    await visit(path, true);
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("[path]", "folder or file in the tree", treePath, "/")
      .option("-l, --long", "kind, permissions, size, time and tiers (L local, N NAS, C cold)")
      .option("-a, --all", "names that begin with a dot too")
      .option("-R, --recursive", "folders inside folders")
      .action((path, options) => start((context) => list(context, path, options)));
    example(command, "anyfs ls -l /photos", "Lists the folder /photos with sizes and tiers.");
  },
};
