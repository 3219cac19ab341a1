/** Whole trees: tar, git, find, and a package manager's folder. */
import { shell } from "./house.ts";
import { FORGET_NAMES } from "./targets.ts";
import { type Figure, NotSupported, type Round, seconds, type Task } from "./task.ts";

const LIMIT_MS = 180_000;

const untar = async (dir: string, { tools }: Round) => {
  await shell('mkdir "$2"; tar -xf "$1" -C "$2"', [tools.tar, dir], LIMIT_MS);
};
const clone = async (dir: string, { tools }: Round) => {
  await shell('git clone -q "file://$1" "$2"', [tools.repository, dir], LIMIT_MS);
};
// Without the links of node_modules/.bin: rclone has no symbolic links.
const npmCi = async (dir: string, { tools }: Round) => {
  if (tools.packages === null) throw new NotSupported("npm and its registry");
  const install = `mkdir "$2"; cd "$2"; cp "$1"/package*.json .
    npm ci --offline --cache "$1/cache" --no-audit --no-fund --ignore-scripts --no-bin-links > /dev/null`;
  await shell(install, [tools.packages, dir], LIMIT_MS);
};
const kept = (name: string, { target }: Round, round: number): string => `${target.trees}/${name}-${round}`;

/** Makes what an earlier task has left behind, when that task was not wanted. */
async function ensure(name: "untar" | "git_clone", round: Round): Promise<string> {
  const dir = kept(name, round, 0);
  if (await shell('[ -e "$1" ] && echo yes || echo no', [dir]) === "no") {
    await (name === "untar" ? untar : clone)(dir, round);
  }
  return dir;
}

/** A tree made in each round; the first one stays for the tasks that look at it. */
const making = (
  id: string,
  title: string,
  make: (dir: string, round: Round) => Promise<unknown>,
  stays: boolean,
): Task => ({
  rows: [{ id, title, unit: "s" }],
  run: async (round) => ({ [id]: { value: await seconds(() => make(kept(id, round, round.round), round)) } }),
  after: async (round) => {
    if (!stays || round.round > 0) await shell('rm -rf "$1"', [kept(id, round, round.round)], LIMIT_MS);
  },
});

const gitStatus: Task = {
  rows: [
    { id: "git_status_first", title: "git status of that clone, the kernel's names dropped", unit: "s" },
    { id: "git_status", title: "git status of that clone, again", unit: "s" },
  ],
  prepare: async (round) => {
    // git hashes files again that are as young as its index; once.
    await shell('git -C "$1" status --porcelain', [await ensure("git_clone", round)], LIMIT_MS);
  },
  run: async (round) => {
    const dir = kept("git_clone", round, 0);
    const status = async (): Promise<Figure> => ({
      value: await seconds(async () => {
        const said = await shell('git -C "$1" status --porcelain', [dir], LIMIT_MS);
        if (said !== "") throw new Error(`git status finds changes in an unchanged clone: ${said.slice(0, 500)}`);
      }),
    });
    await shell(FORGET_NAMES);
    return { git_status_first: await status(), git_status: await status() };
  },
};

/** Both trees together. */
const find = (files: number): Task => {
  const title = `find over ${(2 * files).toLocaleString("en")} files`;
  return {
    rows: [
      { id: "find_first", title: `${title}, the kernel's names dropped`, unit: "s" },
      { id: "find", title: `${title}, again`, unit: "s" },
      { id: "find_stat", title: `${title} with a stat of each`, unit: "s" },
    ],
    prepare: async (round) => {
      await ensure("untar", round);
      await ensure("git_clone", round);
    },
    run: async (round) => {
      const look = async (test: string): Promise<Figure> => ({
        value: await seconds(async () => {
          const trees = [kept("untar", round, 0), kept("git_clone", round, 0)];
          const seen = await shell(`find "$1" "$2" -name 'f[0-9]*' -type f ${test} | wc -l`, trees, LIMIT_MS);
          if (seen !== String(2 * files)) throw new Error(`find saw ${seen} of ${2 * files} files`);
        }),
      });
      await shell(FORGET_NAMES);
      return { find_first: await look(""), find: await look(""), find_stat: await look("-mmin -600") };
    },
  };
};

export function treeTasks(files: number): Task[] {
  const number = files.toLocaleString("en");
  return [
    making("untar", `tar x of ${number} files of 4.2 KB`, untar, true),
    making("git_clone", `git clone of ${number} files`, clone, true),
    gitStatus,
    find(files),
    making("npm_ci", "npm ci of 9,000 files from its own cache", npmCi, false),
    making("modules", "cp -r of a node_modules", async (dir, { tools }) => {
      await shell('cp -r "$1" "$2"', [tools.modules, dir], LIMIT_MS);
    }, false),
  ];
}
