/** The configuration file: what it means, and what is said about one that is wrong. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { FsError } from "../fs/error.ts";
import { annotatedDefault } from "./annotated.ts";
import { checkConfig, type Config, defaults, findConfigFile, printProblem, readConfig } from "./config.ts";
import type { Environment } from "./places.ts";
import { SECTIONS } from "./schema.ts";
import { configRows, HIDDEN, redact } from "./show.ts";
import { TomlLines } from "./toml_lines.ts";

const FILE = "/etc/anyfs/config.toml";
const environment = (values: Record<string, string> = {}): Environment => {
  const all: Record<string, string> = { HOME: "/home/ann", ...values };
  return (name) => all[name];
};

function good(text: string, values?: Record<string, string>): Config {
  const { config, problems } = checkConfig(text, FILE, environment(values));
  assert.deepEqual(problems, []);
  assert.ok(config);
  return config;
}

Deno.test("without a file everything has a value below the user's folders", () => {
  const config = defaults(environment());
  assert.equal(config.file, null);
  assert.deepEqual(config.daemon.listen, { hostname: "127.0.0.1", port: 7734 });
  assert.equal(config.daemon.stateDir, "/home/ann/.local/share/anyfs");
  assert.deepEqual(config.tiers.local, { path: "/home/ann/.local/share/anyfs/hot", watermarks: null });
  assert.equal(config.tiers.nas, null);
  assert.equal(config.tiers.s3, null);
  assert.equal(config.cache.dir, "/home/ann/.cache/anyfs");
  assert.equal(config.cache.size, 10 * 1024 ** 3);
  assert.equal(config.cache.metadataTtlMs, 5000);
  assert.equal(config.upload.bandwidth, null);
});

Deno.test("the environment names the folders, before the file", () => {
  const values = { ANYFS_STATE_DIR: "/s", ANYFS_CACHE_DIR: "/c" };
  const config = good(`[daemon]\nstate_dir = "/var/lib/anyfs"\n[cache]\ndir = "/x"\n`, values);
  assert.equal(config.daemon.stateDir, "/s");
  assert.equal(config.tiers.local.path, "/s/hot");
  assert.equal(config.cache.dir, "/c");
  assert.equal(defaults(environment({ XDG_DATA_HOME: "/d" })).daemon.stateDir, "/d/anyfs");
  assert.throws(() => defaults(() => undefined), /ANYFS_STATE_DIR/);
});

/** The example of the public contract, unchanged. */
const CONTRACT = `[daemon]
listen = "127.0.0.1:7734"
state_dir = "/var/lib/anyfs"
mount_path = "/mnt/anyfs"            # optional
token_file = "/etc/anyfs/token"      # for clients

[tiers.local]                        # bit 0
path = "/srv/anyfs/hot"
high_watermark_gb = 200
low_watermark_gb = 150

[tiers.nas]                          # bit 1
path = "/mnt/nas/anyfs"              # or backend = "sftp" | "webdav" | "rclone" with its own keys
high_watermark_gb = 2000
low_watermark_gb = 1500

[tiers.s3]                           # bit 2, the source of truth, never evicted
bucket = "my-anyfs"
region = "us-east-1"
prefix = "anyfs/"
endpoint = "http://127.0.0.1:9000"   # S3-compatible servers
path_style = true

[upload]
flush_size_mb = 256
flush_interval_secs = 300
transfers = 4
bandwidth_limit = "20M"

[eviction]
interval_secs = 600
recency_weight = 0.7
frequency_weight = 0.3

[[origins]]
id = "music-nas"
type = "local"                       # local | s3 | sftp | webdav | rclone | memory | plugin
path = "/mnt/nas/music"
priority = 1

[cache]
size = "10G"
metadata_ttl = "5s"
prefetch = true

[sync]
interval = "5m"
conflict = "keep-both"

[limits]                             # quota and rate-limit layers
max_total_size = "2T"
requests_per_second = 2000

[library]
template = "$artist/$album ($year) [$format_upper]/$track - $title.$format"
`;

Deno.test("the example of the contract means what it says", () => {
  const config = good(CONTRACT);
  const GIB = 1024 ** 3;
  assert.deepEqual(config.tiers.local, { path: "/srv/anyfs/hot", watermarks: { high: 200 * GIB, low: 150 * GIB } });
  assert.deepEqual(config.tiers.nas, {
    store: { type: "local", path: "/mnt/nas/anyfs" },
    watermarks: { high: 2000 * GIB, low: 1500 * GIB },
  });
  assert.deepEqual(config.tiers.s3, {
    store: {
      type: "s3",
      bucket: "my-anyfs",
      prefix: "anyfs/",
      pathStyle: true,
      region: "us-east-1",
      endpoint: "http://127.0.0.1:9000",
    },
  });
  assert.deepEqual(config.upload, {
    flushBytes: 256 * 1024 ** 2,
    flushIntervalMs: 300_000,
    transfers: 4,
    bandwidth: 20 * 1024 ** 2,
  });
  assert.deepEqual(config.eviction, { intervalMs: 600_000, recencyWeight: 0.7, frequencyWeight: 0.3 });
  assert.deepEqual(config.origins, [{
    id: "music-nas",
    priority: 1,
    store: { type: "local", path: "/mnt/nas/music" },
  }]);
  assert.deepEqual(config.cache, {
    dir: "/home/ann/.cache/anyfs",
    size: 10 * GIB,
    metadataTtlMs: 5000,
    prefetch: true,
    passthrough: true,
  });
  assert.deepEqual(config.sync, { intervalMs: 300_000, conflict: "keep-both" });
  assert.equal(config.limits.maxTotalSize, 2 * 1024 ** 4);
  assert.equal(config.limits.requestsPerSecond, 2000);
  assert.equal(config.daemon.mountPath, "/mnt/anyfs");
  assert.equal(config.daemon.lockLeaseMs, 30_000);
});

Deno.test("every kind of store is read", () => {
  const config = good(`
[tiers.nas]
backend = "sftp"
host = "nas.local"
user = "ann"
path = "/volume1/anyfs"
key_file = "~/id"
password_env = "NAS_PASSWORD"
[[origins]]
id = "dav"
type = "webdav"
url = "https://nas.local/dav"
[[origins]]
id = "drive"
type = "rclone"
remote = "gdrive:music"
[[origins]]
id = "own"
type = "plugin"
module = "plugins/own.js"
options = { api_key = "abc", depth = 3 }
[[origins]]
id = "scratch"
type = "memory"
`);
  assert.deepEqual(config.tiers.nas?.store, {
    type: "sftp",
    host: "nas.local",
    port: 22,
    path: "/volume1/anyfs",
    secret: { env: "NAS_PASSWORD" },
    user: "ann",
    keyFile: "/home/ann/id",
  });
  assert.deepEqual(config.origins.map(({ store }) => store), [
    { type: "webdav", url: "https://nas.local/dav", path: "/", secret: {} },
    { type: "rclone", remote: "gdrive:music" },
    { type: "plugin", module: "/etc/anyfs/plugins/own.js", options: { api_key: "abc", depth: 3 } },
    { type: "memory" },
  ]);
});

/** A wrong file and everything that is said about it. */
const WRONG: readonly [title: string, text: string, said: readonly RegExp[]][] = [
  ["not TOML", `[daemon]\nlisten = = 1\n`, [/^.*:2: not valid TOML/]],
  ["a key twice", `[sync]\ninterval = "5m"\ninterval = "6m"\n`, [/^.*:3: not valid TOML/]],
  ["a misspelt key", `[daemon]\n\nlistne = "x:1"\n`, [/:3: daemon\.listne: unknown key; did you mean "listen"\?$/]],
  ["a misspelt table", `[tier.s3]\nbucket = "b"\n`, [/:1: tier: unknown key; did you mean "tiers"\?$/]],
  ["a misspelt tier", `[tiers.nsa]\npath = "/x"\n`, [/:1: tiers\.nsa: unknown key; did you mean "nas"\?$/]],
  ["a key that is like none", `[sync]\nwhatever_this_is = 1\n`, [
    /:2: sync\.whatever_this_is: unknown key; known here: interval, conflict$/,
  ]],
  [
    "an unknown key of an origin",
    `[[origins]]\nid="a"\ntype="memory"\n[[origins]]\nid="b"\ntype="memory"\nprioritty=2\n`,
    [
      /:7: origins\[1\]\.prioritty: unknown key; did you mean "priority"\?$/,
    ],
  ],
  ["a password", `[tiers.nas]\nbackend="sftp"\nhost="n"\npath="/p"\npassword = "x"\n`, [
    /:5: tiers\.nas\.password: secrets never stand in this file; .*password_env/,
  ]],
  ["an AWS key", `[tiers.s3]\nbucket="b"\nsecret_access_key = "x"\n`, [
    /:3: .*secrets never stand in this file; .*AWS chain/,
  ]],
  ["a password in a URL", `[[origins]]\nid="d"\ntype="webdav"\nurl="https://u:p@h/"\n`, [
    /:4: origins\[0\]\.url: secrets never/,
  ]],
  ["a number as text", `[upload]\ntransfers = "four"\n`, [/:2: upload\.transfers: must be a number$/]],
  ["a fraction of a transfer", `[upload]\ntransfers = 1.5\n`, [/:2: upload\.transfers: must be a whole number$/]],
  ["no transfers", `[upload]\ntransfers = 0\n`, [/:2: upload\.transfers: must be 1 or more$/]],
  ["a negative weight", `[eviction]\nrecency_weight = -1\n`, [/:2: eviction\.recency_weight: must not be negative$/]],
  ["weights that weigh nothing", `[eviction]\nrecency_weight = 0\nfrequency_weight = 0\n`, [/eviction: .*both 0/]],
  ["a text as flag", `[cache]\nprefetch = "yes"\n`, [/:2: cache\.prefetch: must be true or false$/]],
  ["no size", `[cache]\nsize = "big"\n`, [/:2: cache\.size: "big" is not a size; write for example 10M/]],
  ["a cache of nothing", `[cache]\nsize = 0\n`, [/:2: cache\.size: must be above 0/]],
  ["a time without unit", `[sync]\ninterval = 300\n`, [/:2: sync\.interval: must be a time such as "5m"$/]],
  ["no time", `[sync]\ninterval = "soon"\n`, [/:2: sync\.interval: "soon" is not a time/]],
  ["no rate", `[upload]\nbandwidth_limit = "20M/h"\n`, [/:2: upload\.bandwidth_limit: "20M\/h" is not a rate/]],
  ["an unknown policy", `[sync]\nconflict = "mine"\n`, [
    /:2: sync\.conflict: must be one of "server-wins", .*"manual"$/,
  ]],
  ["an address without port", `[daemon]\nlisten = "127.0.0.1"\n`, [/:2: daemon\.listen: must be "host:port"/]],
  ["a port too high", `[daemon]\nlisten = "127.0.0.1:70000"\n`, [/:2: daemon\.listen: has a port above 65535$/]],
  ["half a certificate", `[daemon]\ntls_cert = "/c"\n`, [/:2: daemon\.tls_cert: stands without tls_key/]],
  ["a low watermark above the high one", `[tiers.local]\nhigh_watermark_gb = 100\nlow_watermark_gb = 100\n`, [
    /:3: tiers\.local\.low_watermark_gb: must be below high_watermark_gb/,
  ]],
  ["only a low watermark", `[tiers.local]\nlow_watermark_gb = 100\n`, [
    /:2: tiers\.local\.low_watermark_gb: stands without/,
  ]],
  ["a watermark on the cold tier", `[tiers.s3]\nbucket="b"\nhigh_watermark_gb = 5\n`, [
    /:3: tiers\.s3\.high_watermark_gb: unknown key/,
  ]],
  ["s3 without a bucket", `[tiers.s3]\nregion = "eu-central-1"\n`, [/:1: tiers\.s3: s3 needs bucket; add bucket = /]],
  ["a nas without a path", `[tiers.nas]\nhigh_watermark_gb = 5\n`, [/:1: tiers\.nas: local needs path/]],
  ["a key of another kind of store", `[tiers.nas]\npath = "/n"\nbucket = "b"\n`, [
    /:3: tiers\.nas\.bucket: belongs to s3, and this is local/,
  ]],
  ["two tiers in one folder", `[tiers.local]\npath = "/a"\n[tiers.nas]\npath = "/a/../a"\n`, [
    /:4: tiers\.nas\.path: is also the path of tiers\.local/,
  ]],
  [
    "two sources of one password",
    `[[origins]]\nid="d"\ntype="webdav"\nurl="http://h"\npassword_env="A"\npassword_file="/b"\n`,
    [
      /:6: origins\[0\]\.password_file: stands beside password_env/,
    ],
  ],
  ["an origin without an id", `[[origins]]\ntype = "memory"\n`, [/:1: origins\[0\]: id is missing; add id = /]],
  ["an origin of no kind", `[[origins]]\nid = "a"\n`, [/:1: origins\[0\]: type is missing/]],
  ["two origins of one name", `[[origins]]\nid="a"\ntype="memory"\n\n[[origins]]\nid="a"\ntype="memory"\n`, [
    /:6: origins\[1\]\.id: "a" is used twice/,
  ]],
  ["origins as one table", `[origins]\nid = "a"\n`, [/:1: origins: must be tables: \[\[origins\]\]$/]],
  ["a table where a value belongs", `[daemon.listen]\nhost = "x"\n`, [/:1: daemon\.listen: must be a text in quotes$/]],
  ["a value where a table belongs", `daemon = 5\n`, [/:1: daemon: must be a table$/]],
  ["several things, in the order of the file", `[sync]\nconflict = "x"\n[upload]\ntransfers = 0\nsize = 1\n`, [
    /:2: /,
    /:4: /,
    /:5: /,
  ]],
];

for (const [title, text, said] of WRONG) {
  Deno.test(`a file with ${title} is refused by line and key`, () => {
    const { config, problems } = checkConfig(text, FILE, environment());
    assert.equal(config, null);
    const lines = problems.map((problem) => printProblem(FILE, problem));
    assert.equal(lines.length, said.length, lines.join("\n"));
    for (const [i, pattern] of said.entries()) assert.match(lines[i] ?? "", pattern);
  });
}

Deno.test("the file that init writes is the same as none, names every key, and says something about each", () => {
  const text = annotatedDefault();
  assert.deepEqual({ ...good(text), file: null }, defaults(environment()));
  for (const { comment, keys } of Object.values(SECTIONS)) {
    assert.ok(text.includes(comment));
    for (const [name, { sample, comment }] of Object.entries(keys)) {
      assert.ok(text.includes(`${name} = ${sample}`), name);
      assert.ok(text.includes(`# ${comment}`), name);
    }
  }
});

Deno.test("the file that init writes is right with every key taken in, one kind of store at a time", () => {
  const others =
    /^(host|port|url|user|password_env|password_file|key_file|known_hosts|remote|config_file|module|options)\b/;
  const storeless = /^(bucket|region|prefix|endpoint|path_style|profile)\b/;
  let section = "";
  const text = annotatedDefault().split("\n").map((line) =>
    line.replace(/^# (?=(\[+[a-z0-9.]+\]+$|[a-z_0-9]+ += ))/, "")
  )
    .filter((line) => {
      section = /^\[+([a-z0-9.]+)\]+/.exec(line)?.[1] ?? section;
      if (section === "tiers.s3") return !others.test(line) && !/^path\b/.test(line);
      return section === "tiers.nas" || section === "origins" ? !others.test(line) && !storeless.test(line) : true;
    }).join("\n").replace(
      /(\[tiers\.nas\][\s\S]*?)"\/srv\/data"/,
      '$1"/srv/nas"',
    );
  const config = good(text);
  assert.equal(config.tiers.nas?.watermarks?.high, 200 * 1024 ** 3);
  assert.equal(config.limits.maxDepth, 100);
});

Deno.test("a file that isn't there is wrong configuration, with what writes one", async () => {
  await assert.rejects(
    readConfig("/nowhere/config.toml", environment()),
    (error) => error instanceof FsError && error.exitCode === 2 && /no such file.*config init/.test(error.message),
  );
});

Deno.test("a wrong file is told by its first problem and the number of the others", async () => {
  const folder = await Deno.makeTempDir();
  const file = `${folder}/config.toml`;
  await Deno.writeTextFile(file, `[sync]\nconflict = "x"\n[upload]\ntransfers = 0\n`);
  await assert.rejects(readConfig(file, environment()), (error) => {
    assert.ok(error instanceof FsError);
    assert.equal(error.code, "invalid_input");
    assert.ok(error.message.startsWith(`${file}:2: sync.conflict: `), error.message);
    assert.match(error.message, /and 1 more/);
    return true;
  });
  await Deno.remove(folder, { recursive: true });
});

Deno.test("the file is the named one, ANYFS_CONFIG's, or one of the usual places", async () => {
  const home = await Deno.makeTempDir();
  const env = environment({ HOME: home });
  assert.equal(await findConfigFile("a.toml", env, "/work"), "/work/a.toml");
  assert.equal(await findConfigFile(undefined, environment({ ANYFS_CONFIG: "/x/a.toml" }), "/"), "/x/a.toml");
  await Deno.mkdir(`${home}/.config/anyfs`, { recursive: true });
  await Deno.writeTextFile(`${home}/.config/anyfs/config.toml`, "");
  assert.equal(await findConfigFile(undefined, env, "/"), `${home}/.config/anyfs/config.toml`);
  await Deno.remove(home, { recursive: true });
});

Deno.test("what is shown hides secrets and keeps what only names them", () => {
  const config = good(`
[daemon]
token_file = "/etc/anyfs/token"
[[origins]]
id = "own"
type = "plugin"
module = "/p.js"
options = { api_key = "abc", nested = { password = "def", list = ["ok"] }, pin = { auth_token = 1234 } }
`);
  const shown = JSON.stringify(redact(config)) + JSON.stringify(configRows(config));
  for (const secret of ["abc", "def", "1234"]) assert.ok(!shown.includes(`${secret}`), secret);
  for (const kept of ["/etc/anyfs/token", "ok", HIDDEN]) assert.ok(shown.includes(kept), kept);
  assert.equal(redact("http://user:pass@host/x"), `http://${HIDDEN}@host/x`);
});

Deno.test("shown rows have units", () => {
  const rows = Object.fromEntries(configRows(good(CONTRACT)));
  assert.equal(rows["daemon.listen"], "127.0.0.1:7734");
  assert.equal(rows["cache.size"], "10G");
  assert.equal(rows["sync.intervalMs"], "5m");
  assert.equal(rows["upload.bandwidth"], "20M");
  assert.equal(rows["tiers.local.watermarks.high"], "200G");
  assert.equal(rows["limits.maxDepth"], "-");
});

Deno.test("keys are found on their lines through quotes, dots, multi-line values and comments", () => {
  const lines = new TomlLines([
    `# comment`, //         1
    `top = 1`, //           2
    `"quoted key" = 2`, //  3
    `[a.b] # x`, //         4
    `text = """`, //        5
    `[not.a.table]`, //     6
    `fake = 1`, //          7
    `"""`, //               8
    `list = [ # [`, //      9
    `  "]",`, //           10
    `]`, //                11
    `after.dot = 'x # y'`, // 12
    `[[o]]`, //            13
    `n = 1`, //            14
    `[[o]]`, //            15
    `[o.sub]`, //          16
    `n = 2`, //            17
  ].join("\n"));
  const cases: [readonly (string | number)[], number][] = [
    [["top"], 2],
    [["quoted key"], 3],
    [["a", "b"], 4],
    [["a", "b", "text"], 5],
    [["fake"], 1],
    [["not"], 1],
    [["a", "b", "list"], 9],
    [["a", "b", "after", "dot"], 12],
    [["o", 0, "n"], 14],
    [["o", 1], 15],
    [["o", 1, "sub", "n"], 17],
    [["o", 1, "missing"], 15],
  ];
  for (const [path, line] of cases) assert.equal(lines.lineOf(path), line, path.join("."));
});

Deno.test("no text makes the check throw anything", () => {
  const word = fc.constantFrom(
    "[",
    "]",
    "daemon",
    "tiers",
    "s3",
    ".",
    "=",
    '"',
    "'''",
    "\n",
    "1",
    "#",
    "{",
    "}",
    ",",
    "origins",
    "\\",
    "é",
  );
  fc.assert(fc.property(fc.array(word).map((words) => words.join("")), (text) => {
    const { config, problems } = checkConfig(text, FILE, environment());
    return (config === null) === (problems.length > 0);
  }));
});
