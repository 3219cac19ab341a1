/** `anyfs stat`: everything known about a file or folder of the tree. */
import { kindOf } from "../core/fs/stat.ts";
import { printable } from "../core/observe/style.ts";
import { nodeJson } from "../core/remote/node_json.ts";
import { eachItem, withRemote } from "./remote.ts";
import type { CommandModule, Start } from "./module.ts";
import type { Context } from "./context.ts";
import { treePaths } from "./arguments.ts";
import { example } from "./example.ts";

async function showStat(context: Context, paths: readonly string[]): Promise<number> {
  const { signal, out } = context;
  return await withRemote(context, (tree) =>
    eachItem(context, paths, async (path) => {
      const stat = await tree.stat(path, { signal });
      const link = kindOf(stat.mode) === "symlink" ? await tree.readLink(path, { signal }) : undefined;
      const node = nodeJson(path, stat, link);
      const text = () => {
        const rows: [string, string][] = [
          ["path", printable(path) + (link === undefined ? "" : ` -> ${printable(link)}`)],
          ["kind", node.kind],
          ["size", String(node.size)],
          ["mode", `${node.mode} (uid ${node.uid}, gid ${node.gid})`],
          ["modified", node.mtime],
          ["accessed", node.atime],
          ["changed", node.ctime],
          ["born", node.btime],
          ["inode", `${node.ino} (${node.nlink} links)`],
          ["version", String(node.version)],
          ["content", node.content ?? "-"],
          ["tiers", node.tiers_text],
        ];
        return rows.map(([name, value]) => `${name.padEnd(9)} ${value}`).join("\n");
      };
      if (paths.length === 1) out.data(node, () => `${text()}\n`);
      else out.item(node, text);
    }));
}

export const command: CommandModule = {
  configure(command, start: Start) {
    command
      .argument("<path...>", "files or folders in the tree", treePaths)
      .action((paths) => start((context) => showStat(context, paths)));
    example(command, "anyfs stat --json /photos/a.jpg", "Size, times, owner, version, hash and tiers as JSON.");
  },
};
