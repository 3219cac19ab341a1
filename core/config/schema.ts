/** Every section and key of the configuration file: its type, its default, and the comment `config init` writes. */
import * as v from "valibot";
import { parseDuration, parseRate, parseSize } from "./units.ts";

/** A key: how it is checked, what it is for, and an example or default as it is written in TOML. */
export interface Key<S extends v.GenericSchema> {
  readonly schema: S;
  readonly comment: string;
  readonly sample: string;
}

function key<S extends v.GenericSchema>(schema: S, sample: string, comment: string): Key<S> {
  return { schema, comment, sample };
}

/** Applies a parser of units.ts and turns its refusal into an issue. */
function unit<Out>(parse: (text: string) => Out) {
  return v.rawTransform<string, Out>(({ dataset, addIssue, NEVER }) => {
    try {
      return parse(dataset.value);
    } catch (error) {
      addIssue({ message: error instanceof Error ? error.message : String(error) });
      return NEVER;
    }
  });
}

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

const text = v.pipe(v.string("must be a text in quotes"), v.nonEmpty("must not be empty"));
const flag = v.boolean("must be true or false");
const number = v.number("must be a number");
const positive = v.pipe(number, v.minValue(0, "must not be negative"), v.finite("must be finite"));
const count = v.pipe(number, v.integer("must be a whole number"), v.minValue(1, "must be 1 or more"));
const port = v.pipe(
  number,
  v.integer("must be a whole number"),
  v.minValue(1, "must be 1 to 65535"),
  v.maxValue(65535, "must be 1 to 65535"),
);
const seconds = v.pipe(positive, v.transform((value) => Math.round(value * 1000)));
const gigabytes = v.pipe(positive, v.transform((value) => Math.round(value * GIB)));
const megabytes = v.pipe(positive, v.transform((value) => Math.round(value * MIB)));
const wholeBytes = v.pipe(number, v.integer("must be whole bytes"), v.minValue(0, "must not be negative"));
const size = v.pipe(
  v.union([v.string(), wholeBytes], 'must be a size such as "10G", or whole bytes'),
  v.transform(String),
  unit(parseSize),
);
const duration = v.pipe(v.string('must be a time such as "5m"'), unit(parseDuration));
const rate = v.pipe(v.string('must be a rate such as "20M" (bytes a second), or "off"'), unit(parseRate));
const choice = <const T extends readonly [string, ...string[]]>(...values: T) =>
  v.picklist(values, `must be one of ${values.map((value) => `"${value}"`).join(", ")}`);
/** `host:port`; the host may be an IPv6 address in brackets. */
const address = v.pipe(
  text,
  v.regex(/^(?:\[[0-9a-f:.%a-z]+\]|[^\s:/]+):\d{1,5}$/i, 'must be "host:port", for example "127.0.0.1:7734"'),
  v.transform((value) => {
    const colon = value.lastIndexOf(":");
    return { hostname: value.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(value.slice(colon + 1)) };
  }),
  v.check(({ port }) => port <= 65535, "has a port above 65535"),
);

/** What a store needs to be reached, besides its kind: the same for a tier and an origin. */
const STORE_KEYS = {
  path: key(v.optional(text), '"/srv/data"', "Folder: of this machine, or on the SFTP or WebDAV server."),
  host: key(v.optional(text), '"nas.local"', "sftp: the server."),
  port: key(v.optional(port), "22", "sftp: its port."),
  url: key(v.optional(text), '"https://nas.local/dav"', "webdav: the server."),
  user: key(v.optional(text), '"anyfs"', "sftp, webdav: who logs in."),
  password_env: key(
    v.optional(text),
    '"NAS_PASSWORD"',
    "sftp, webdav: the environment variable that holds the password.",
  ),
  password_file: key(
    v.optional(text),
    '"/etc/anyfs/nas-password"',
    "sftp, webdav: a file, readable by its owner only, that holds it.",
  ),
  key_file: key(v.optional(text), '"/etc/anyfs/id_ed25519"', "sftp: a private key."),
  known_hosts: key(v.optional(text), '"/etc/anyfs/known_hosts"', "sftp: the host keys to accept."),
  remote: key(v.optional(text), '"gdrive:backup"', "rclone: a remote of its configuration, with a folder."),
  config_file: key(v.optional(text), '"/etc/anyfs/rclone.conf"', "rclone: its configuration file."),
  bucket: key(v.optional(text), '"my-anyfs"', "s3: the bucket."),
  region: key(v.optional(text), '"us-east-1"', "s3: its region."),
  prefix: key(
    v.optional(v.string("must be a text in quotes")),
    '"anyfs/"',
    "s3: what every object's name begins with.",
  ),
  endpoint: key(v.optional(text), '"http://127.0.0.1:9000"', "s3: the server, where it isn't Amazon's."),
  path_style: key(v.optional(flag), "true", "s3: the bucket stands in the path, not in the host's name."),
  profile: key(v.optional(text), '"default"', "s3: the profile in ~/.aws; keys come from the standard AWS chain."),
};

const WATERMARK_KEYS = {
  high_watermark_gb: key(v.optional(gigabytes), "200", "Eviction begins above this many GiB."),
  low_watermark_gb: key(v.optional(gigabytes), "150", "and ends below this many."),
};

/** Keys that only origins have. */
const ORIGIN_KEYS = {
  id: key(
    v.pipe(text, v.regex(/^[a-z0-9][a-z0-9._-]*$/i, "may have letters, digits, dots, hyphens and underscores")),
    '"music-nas"',
    "Its name, unique.",
  ),
  type: key(
    choice("local", "s3", "sftp", "webdav", "rclone", "memory", "plugin"),
    '"local"',
    "What kind of store it is.",
  ),
  ...STORE_KEYS,
  module: key(v.optional(text), '"/etc/anyfs/plugins/x.js"', "plugin: the module, plain JavaScript."),
  options: key(v.optional(v.record(v.string(), v.unknown())), "{ }", "plugin: settings handed to it."),
  priority: key(
    v.optional(v.pipe(number, v.integer("must be a whole number")), 1),
    "1",
    "Of several with the same file, the lowest number is read.",
  ),
};

/** The tables of the file, in the order they are written; `[[origins]]` is the one that may repeat. */
export const SECTIONS = {
  daemon: {
    comment: "The server (`anyfs serve`), and where clients find their token.",
    keys: {
      listen: key(
        v.optional(address, "127.0.0.1:7734"),
        '"127.0.0.1:7734"',
        "Address and port. Any other than loopback needs tokens (`anyfs token create`).",
      ),
      state_dir: key(
        v.optional(text),
        '"/var/lib/anyfs"',
        "Index, write-ahead log and, unless said otherwise, the hot tier.",
      ),
      mount_path: key(v.optional(text), '"/mnt/anyfs"', "Also mount the tree here."),
      token_file: key(
        v.optional(text),
        '"/etc/anyfs/token"',
        "For clients: the file that holds the token; readable by its owner only.",
      ),
      tls_cert: key(v.optional(text), '"/etc/anyfs/cert.pem"', "Serve https with this certificate chain ..."),
      tls_key: key(v.optional(text), '"/etc/anyfs/key.pem"', "... and this private key."),
      insecure: key(
        v.optional(flag, false),
        "false",
        "Serve an address that isn't loopback without tokens: only behind something that checks.",
      ),
      lock_lease: key(
        v.optional(duration, "30s"),
        '"30s"',
        "How long a mount that has lost its connection keeps its file locks against others who want them.",
      ),
      log_level: key(
        v.optional(choice("trace", "debug", "info", "warn", "error"), "info"),
        '"info"',
        "trace, debug, info, warn or error.",
      ),
      log_format: key(v.optional(choice("text", "json"), "text"), '"text"', "text, or json (one document a line)."),
    },
  },
  "tiers.local": {
    comment: "Bit 0: the hot tier, on a disk of this machine.",
    keys: { path: STORE_KEYS.path, ...WATERMARK_KEYS },
  },
  "tiers.nas": {
    comment: "Bit 1: the warm tier. Leave it out when there is none.",
    keys: {
      backend: key(
        v.optional(choice("local", "sftp", "webdav", "rclone", "s3"), "local"),
        '"local"',
        "local (a mounted folder), sftp, webdav, rclone or s3, with its own keys below.",
      ),
      ...STORE_KEYS,
      ...WATERMARK_KEYS,
    },
  },
  "tiers.s3": {
    comment: "Bit 2: the cold tier, the source of truth, never evicted. Leave it out when there is none.",
    keys: {
      backend: key(
        v.optional(choice("s3", "local", "sftp", "webdav", "rclone"), "s3"),
        '"s3"',
        "s3, or another store with its own keys.",
      ),
      ...STORE_KEYS,
    },
  },
  upload: {
    comment: "How new data moves on to the warm and the cold tier.",
    keys: {
      flush_size_mb: key(v.optional(megabytes, 256), "256", "Upload when this many MiB wait ..."),
      flush_interval_secs: key(v.optional(seconds, 300), "300", "... or when the oldest has waited so long."),
      transfers: key(v.optional(count, 4), "4", "Uploads at a time."),
      bandwidth_limit: key(v.optional(rate), '"20M"', 'Bytes a second, all uploads together; "off" for no limit.'),
    },
  },
  eviction: {
    comment: "What leaves a tier that is above its high watermark: the lowest score first.",
    keys: {
      interval_secs: key(v.optional(seconds, 600), "600", "How often the tiers are looked at."),
      recency_weight: key(v.optional(positive, 0.7), "0.7", "score = recency_weight / seconds since the last access"),
      frequency_weight: key(v.optional(positive, 0.3), "0.3", "      + frequency_weight * accesses in 30 days"),
    },
  },
  origins: {
    comment: "An existing store, shown in place and never written. Repeat the table for each.",
    keys: ORIGIN_KEYS,
  },
  cache: {
    comment: "A client's cache (`anyfs mount`).",
    keys: {
      dir: key(v.optional(text), '"~/.cache/anyfs"', "Where it is."),
      size: key(v.optional(size, "10G"), '"10G"', "How large it may grow."),
      metadata_ttl: key(
        v.optional(duration, "5s"),
        '"5s"',
        "How long names and attributes are trusted while the server can't push changes.",
      ),
      prefetch: key(v.optional(flag, true), "true", "Read ahead where files are read in order."),
      passthrough: key(
        v.optional(flag, true),
        "true",
        "On a mount with --read-only, as root on Linux 6.9 or newer, the kernel reads large files that are whole in the cache by itself, at the disk's own speed.",
      ),
    },
  },
  sync: {
    comment: "`anyfs sync --watch`, and how a client settles conflicts.",
    keys: {
      interval: key(v.optional(duration, "5m"), '"5m"', "Between two passes."),
      conflict: key(
        v.optional(choice("server-wins", "client-wins", "keep-both", "newer", "manual"), "keep-both"),
        '"keep-both"',
        "server-wins, client-wins, keep-both, newer or manual.",
      ),
    },
  },
  limits: {
    comment: "Quotas and rate limits; what is left out isn't limited.",
    keys: {
      max_total_size: key(v.optional(size), '"2T"', "All files together."),
      max_file_size: key(v.optional(size), '"100G"', "One file."),
      max_nodes: key(v.optional(count), "10000000", "Files, folders and links together."),
      max_entries_per_directory: key(v.optional(count), "1000000", "Entries of one folder."),
      max_depth: key(v.optional(count), "100", "Folders inside folders."),
      requests_per_second: key(v.optional(positive), "2000", "For each client."),
    },
  },
  snapshots: {
    comment: "Overwritten and deleted versions, shown under /.snapshots.",
    keys: {
      keep_days: key(v.optional(positive, 30), "30", "How long they are kept; 0 for not at all."),
    },
  },
  library: {
    comment: "Views of a music library.",
    keys: {
      template: key(
        v.optional(text, "$artist/$album ($year) [$format_upper]/$track - $title.$format"),
        '"$artist/$album ($year) [$format_upper]/$track - $title.$format"',
        "Where a track stands in a view.",
      ),
    },
  },
} as const satisfies Record<string, { comment: string; keys: Record<string, Key<v.GenericSchema>> }>;

export type SectionName = keyof typeof SECTIONS;

type Entries<K> = { [N in keyof K]: K[N] extends Key<infer S> ? S : never };

function table<K extends Record<string, Key<v.GenericSchema>>>(keys: K) {
  const entries = Object.fromEntries(Object.entries(keys).map(([name, { schema }]) => [name, schema]));
  return v.strictObject(entries as Entries<K>, "must be a table");
}

const empty = {};

/** The whole file. Its output has defaults filled in and units read: sizes in bytes, times in milliseconds. */
export const fileSchema = v.strictObject({
  daemon: v.optional(table(SECTIONS.daemon.keys), empty),
  tiers: v.optional(
    v.strictObject({
      local: v.optional(table(SECTIONS["tiers.local"].keys), empty),
      nas: v.optional(table(SECTIONS["tiers.nas"].keys)),
      s3: v.optional(table(SECTIONS["tiers.s3"].keys)),
    }, "must be a table"),
    empty,
  ),
  upload: v.optional(table(SECTIONS.upload.keys), empty),
  eviction: v.optional(table(SECTIONS.eviction.keys), empty),
  origins: v.optional(v.array(table(SECTIONS.origins.keys), "must be tables: [[origins]]"), []),
  cache: v.optional(table(SECTIONS.cache.keys), empty),
  sync: v.optional(table(SECTIONS.sync.keys), empty),
  limits: v.optional(table(SECTIONS.limits.keys), empty),
  snapshots: v.optional(table(SECTIONS.snapshots.keys), empty),
  library: v.optional(table(SECTIONS.library.keys), empty),
}, "must be a table");

export type FileValues = v.InferOutput<typeof fileSchema>;

/** The keys that may stand in the table at this place of the file, for "did you mean". */
export function keysAt(path: readonly (string | number)[]): string[] {
  const names = path.filter((part) => typeof part === "string").join(".");
  if (names === "") return [...new Set(Object.keys(SECTIONS).map((name) => name.split(".")[0] ?? name))];
  const section = Object.entries(SECTIONS).find(([name]) => name === names);
  if (section !== undefined) return Object.keys(section[1].keys);
  return Object.keys(SECTIONS).filter((name) => name.startsWith(`${names}.`)).map((name) =>
    name.slice(names.length + 1)
  );
}
