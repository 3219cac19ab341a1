/** The command line from outside: help, wrong usage, exit codes, configuration, completions, interruption. */
import assert from "node:assert/strict";
import { ALL_COMMANDS, COMMANDS } from "./commands.ts";

const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
const MAIN = `${ROOT}/main.ts`;

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function exec(command: string, args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const child = await new Deno.Command(command, {
    args: [...args],
    env: { NO_COLOR: "1", ANYFS_CONFIG: "", ANYFS_URL: "", ANYFS_TOKEN: "", ...env },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code: child.code, out: decoder.decode(child.stdout), err: decoder.decode(child.stderr) };
}

const deno = (...args: string[]) => [Deno.execPath(), ["run", "-A", "--no-check", "--quiet", ...args]] as const;

function anyfs(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  return exec(...deno(MAIN, ...args), env);
}

/** One line that begins with our name. */
function assertOneLine(text: string): void {
  assert.match(text, /^anyfs: [^\n]+\n$/);
}

Deno.test("--version is one line with version and commit", async () => {
  const { code, out } = await anyfs(["--version"]);
  assert.equal(code, 0);
  assert.match(out, /^anyfs \d+\.\d+\.\d+ \((?:[0-9a-f]{7}|source)\)\n$/);
  const { out: late } = await anyfs(["--quiet", "--version"]);
  assert.equal(late, out);
});

Deno.test("every command has help with an example, and the overview names it", async () => {
  const { code, out: overview } = await anyfs(["--help"]);
  assert.equal(code, 0);
  for (const { name, hidden } of COMMANDS) {
    if (!hidden) assert.match(overview, new RegExp(`^  ${name}\\b`, "m"), name);
  }
  const shown = ALL_COMMANDS.filter(({ name }) => name !== "complete").map(async ({ name }) => {
    const { code, out, err } = await anyfs([name, "--help"]);
    assert.equal(code, 0, name + err);
    assert.match(out, new RegExp(`^Usage: anyfs ${name}`), name);
    assert.match(out, /\nExample:\n {2}\S*.*anyfs /, name);
  });
  await Promise.all(shown);
});

Deno.test("wrong usage is one line with a suggestion, and exit code 2", async () => {
  const cases: [string[], RegExp][] = [
    [["lss"], /unknown command 'lss' \(Did you mean ls\?\)/],
    [["ls", "--lng"], /unknown option '--lng' \(Did you mean --long\?\)/],
    [["ls", "--jsn"], /unknown option '--jsn' \(Did you mean --json\?\)/],
    [["wal", "flsh"], /unknown command 'flsh' \(Did you mean flush\?\)/],
    [["mount"], /missing required argument 'dir'/],
    [["mkdir", "photos"], /"photos" is not a path in the tree/],
    [["evict", "--to", "5X"], /"5X" is not a size; write for example 10M/],
    [["evict", "--tier", "s3"], /Allowed choices are local, nas/],
    [["migrate", "/x", "--jobs", "0"], /"0" is not a whole number from 1 on/],
    [["--log-level", "loud", "ls"], /Allowed choices are trace/],
    [["search", "artist:x"], /search: not built yet/],
    [["sync", "a", "b", "--watch"], /sync: not built yet/],
    [["put", "a", "b"], /"b" is not a path in the tree/],
  ];
  await Promise.all(cases.map(async ([args, expected]) => {
    const { code, out, err } = await anyfs(args);
    assert.equal(code, 2, `${args}: ${err}`);
    assert.equal(out, "");
    assertOneLine(err);
    assert.match(err, expected);
  }));
});

Deno.test("config init writes a file that check finds fine, and doesn't write over one", async () => {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/deep/config.toml`;
  const written = await anyfs(["config", "init", file]);
  assert.deepEqual([written.code, written.out], [0, `wrote ${file}\n`]);
  const text = await Deno.readTextFile(file);
  assert.equal((await anyfs(["config", "init", "-"])).out, text);
  const checked = await anyfs(["config", "check", file]);
  assert.deepEqual([checked.code, checked.out], [0, `${file}: fine\n`]);
  const again = await anyfs(["config", "init", file]);
  assert.equal(again.code, 4);
  assertOneLine(again.err);
  assert.match(again.err, /exists.*--force/);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a wrong file is named by line and key by every command that reads it, with exit code 2", async () => {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/config.toml`;
  await Deno.writeTextFile(file, `[tiers.s3]\nbukket = "x"\n[sync]\nconflict = "mine"\n`);
  const checked = await anyfs(["config", "check"], { ANYFS_CONFIG: file });
  assert.equal(checked.code, 2);
  assert.match(
    checked.err,
    /:2: tiers\.s3\.bukket: unknown key; did you mean "bucket"\?\n.*:4: sync\.conflict: must be/,
  );
  const shown = await anyfs(["--config", file, "config", "show"]);
  assert.equal(shown.code, 2);
  assertOneLine(shown.err);
  assert.match(shown.err, /config\.toml:2: .*\(and 1 more: anyfs config check\)/);
  const json = await anyfs(["config", "check", file, "--json"]);
  assert.deepEqual(JSON.parse(json.out).problems.map(({ line }: { line: number }) => line), [2, 4]);
  const missing = await anyfs(["config", "show", "--config", `${folder}/none.toml`]);
  assert.equal(missing.code, 2);
  assert.match(missing.err, /none\.toml: no such file; anyfs config init/);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("config show prints the defaults with no file at all, as text and as JSON", async () => {
  const home = await Deno.makeTempDir();
  const env = { HOME: home, XDG_CONFIG_HOME: `${home}/c`, XDG_DATA_HOME: "", ANYFS_STATE_DIR: "" };
  const text = await anyfs(["config", "show"], env);
  assert.equal(text.code, 0, text.err);
  assert.match(text.out, /^daemon\.listen +127\.0\.0\.1:7734$/m);
  assert.match(text.out, /^cache\.size +10G$/m);
  const { out } = await anyfs(["config", "show", "--json"], env);
  assert.equal(JSON.parse(out).daemon.stateDir, `${home}/.local/share/anyfs`);
  await Deno.remove(home, { recursive: true });
});

/** A folder with our program on it as `anyfs`, as completion scripts call it. */
async function onPath(): Promise<{ folder: string; env: Record<string, string> }> {
  const folder = await Deno.makeTempDir();
  const [program, args] = deno(MAIN);
  const quoted = [program, ...args].map((word) => `'${word}'`).join(" ");
  await Deno.writeTextFile(`${folder}/anyfs`, `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o755 });
  return { folder, env: { PATH: `${folder}:${Deno.env.get("PATH")}` } };
}

async function has(program: string): Promise<boolean> {
  return await exec("sh", ["-c", `command -v ${program}`]).then(({ code }) => code === 0);
}

Deno.test({
  name: "bash completes commands, flags and their values",
  ignore: !await has("bash"),
  async fn() {
    const { folder, env } = await onPath();
    const press = async (...words: string[]) => {
      const { out, err } = await exec("bash", [
        "--norc",
        "-c",
        'source <(anyfs completions bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _anyfs; ' +
        "printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p anyfs >/dev/null || echo unregistered >&2",
        "bash",
        ...words,
      ], env);
      return [out.split("\n").filter((line) => line !== ""), err] as const;
    };
    const [commands, err] = await press("anyfs", "mi");
    assert.deepEqual([commands, err], [["migrate"], ""]);
    const [flags] = await press("anyfs", "mount", "--conf");
    assert.deepEqual(flags.sort(), ["--config", "--conflict"]);
    const [values] = await press("anyfs", "mount", "--conflict", "ke");
    assert.deepEqual(values, ["keep-both"]);
    const [nested] = await press("anyfs", "wal", "f");
    assert.deepEqual(nested, ["flush"]);
    const [none] = await press("anyfs", `$(touch ${folder}/evaluated)`);
    assert.deepEqual(none, []);
    assert.equal(await Deno.stat(`${folder}/evaluated`).catch(() => null), null);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "zsh takes the completion script and registers it",
  ignore: !await has("zsh"),
  async fn() {
    const { folder, env } = await onPath();
    const { out, err } = await exec("zsh", [
      "-f",
      "-c",
      "autoload -Uz compinit && compinit -u -D && source <(anyfs completions zsh) && print $_comps[anyfs] && whence -w $_comps[anyfs]",
    ], env);
    assert.match(out, /^(\S+)\n\1: function\n$/, err);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "fish completes commands",
  ignore: !await has("fish"),
  async fn() {
    const { folder, env } = await onPath();
    const { out, err } = await exec("fish", [
      "--no-config",
      "-c",
      'anyfs completions fish | source; complete -C "anyfs mi"',
    ], { ...env, HOME: folder });
    assert.match(out, /^migrate\b/m, err);
    await Deno.remove(folder, { recursive: true });
  },
});

/** Runs a script that uses runAction and sends it signals when it has printed "ready". */
async function interrupted(body: string, signals: readonly Deno.Signal[]): Promise<Ended> {
  const folder = await Deno.makeTempDir();
  const script = `${folder}/x.ts`;
  await Deno.writeTextFile(
    script,
    `import { runAction } from ${JSON.stringify(`${ROOT}/cmd/context.ts`)};\n` +
      `Deno.exit(await runAction({}, async ({ signal }) => { ${body} }));\n`,
  );
  const [program, args] = deno("--config", `${ROOT}/deno.json`, script);
  const child = new Deno.Command(program, { args: [...args], stdin: "null", stdout: "piped", stderr: "piped" }).spawn();
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let out = "";
  for (const signal of signals) {
    const before = out.split("ready").length;
    while (out.split("ready").length <= before) {
      const { done, value } = await reader.read();
      if (done) break;
      out += value;
    }
    child.kill(signal);
  }
  for (let part = await reader.read(); !part.done; part = await reader.read()) out += part.value;
  const err = await new Response(child.stderr).text();
  const { code } = await child.status;
  await Deno.remove(folder, { recursive: true });
  return { code, out, err };
}

const WAIT = `const told = new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
  const alive = setInterval(() => {}, 1000);
  console.log("ready"); try { await told } finally { clearInterval(alive) }`;

Deno.test("SIGINT ends a command with 130", async () => {
  const { code, err } = await interrupted(WAIT, ["SIGINT"]);
  assert.deepEqual([code, err], [130, "anyfs: interrupted\n"]);
});

Deno.test("a command that ends well after SIGTERM ends with 0", async () => {
  const { code, err } = await interrupted(`${WAIT.replace("finally", "catch {} finally")}`, ["SIGTERM"]);
  assert.deepEqual([code, err], [0, ""]);
});

Deno.test("a second SIGINT ends a command that doesn't listen", async () => {
  const body = `setInterval(() => {}, 1000); console.log("ready");
    signal.addEventListener("abort", () => console.log("ready")); await new Promise(() => {});`;
  const { code } = await interrupted(body, ["SIGINT", "SIGINT"]);
  assert.equal(code, 130);
});

Deno.test("a token comes from the file, and a file open to others is refused", async () => {
  const folder = await Deno.makeTempDir();
  const script = `${folder}/x.ts`;
  await Deno.writeTextFile(
    script,
    `import { runAction } from ${JSON.stringify(`${ROOT}/cmd/context.ts`)};\n` +
      `Deno.exit(await runAction({ tokenFile: Deno.args[0] }, async (c) => console.log(await c.token())));\n`,
  );
  const token = (file: string, env = {}) => exec(...deno("--config", `${ROOT}/deno.json`, script, file), env);
  await Deno.writeTextFile(`${folder}/t`, "abc\n", { mode: 0o600 });
  assert.equal((await token(`${folder}/t`, { ANYFS_TOKEN: "other" })).out, "abc\n");
  await Deno.chmod(`${folder}/t`, 0o644);
  const open = await token(`${folder}/t`);
  assert.equal(open.code, 2);
  assert.match(open.err, /others may read it; chmod 600/);
  assert.ok(!open.err.includes("abc"));
  assert.match((await token(`${folder}/none`)).err, /no such file/);
  await Deno.remove(folder, { recursive: true });
});

Deno.test("a reader that has read enough is no failure", async () => {
  const { folder, env } = await onPath();
  const { out, err } = await exec("bash", ["-c", `anyfs config init - | head -n 1; echo "\${PIPESTATUS[0]}"`], env);
  assert.match(out, /^# AnyFS configuration.*\n0\n$/);
  assert.equal(err, "");
  // The reader is gone before the program has started.
  const help = await exec("bash", ["-c", `{ anyfs --help; echo "$?" >&2; } | true`], env);
  assert.equal(help.err, "0\n");
  await Deno.remove(folder, { recursive: true });
});
