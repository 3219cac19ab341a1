/** Writes docs/configuration.md from the table of keys: `deno run -A scripts/config_reference.ts`. */
import { SECTIONS } from "../core/config/schema.ts";

const INTRODUCTION = `# Configuration

One TOML file: \`--config FILE\`, else \`ANYFS_CONFIG\`, else \`~/.config/anyfs/config.toml\` (\`$XDG_CONFIG_HOME\`), else
\`/etc/anyfs/config.toml\`. Without any, the defaults hold. \`anyfs config init\` writes one with every key explained,
\`anyfs config check\` names everything wrong by line and key, \`anyfs config show\` prints what holds.

- Sizes are \`10M\`, \`1.5G\`, \`200GiB\`: a letter alone and with \`iB\` is a power of 1024, with \`B\` (\`200GB\`) one of 1000.
  Keys that end with \`_gb\` and \`_mb\` count GiB and MiB.
- Times are \`30s\`, \`5m\`, \`1h30m\`, \`7d\`; rates are sizes a second, or \`off\`.
- Relative paths are below the file's folder; \`~/\` is the home folder.
- Unknown keys, wrong types and contradictions are errors, exit code 2.
- **Secrets never stand here.** AWS uses its standard chain (environment, \`~/.aws\`, profile, instance role). Other stores
  name an environment variable (\`password_env\`) or a file that only its owner can read (\`password_file\`, \`token_file\`).

| environment | |
|---|---|
| \`ANYFS_CONFIG\` | the configuration file |
| \`ANYFS_STATE_DIR\` | where the state is kept; before \`daemon.state_dir\`. Default: \`~/.local/share/anyfs\` (\`$XDG_DATA_HOME\`) |
| \`ANYFS_CACHE_DIR\` | where a client's cache is kept; before \`cache.dir\`. Default: \`~/.cache/anyfs\` (\`$XDG_CACHE_HOME\`) |
| \`ANYFS_URL\` | the server, for clients; \`--server\` goes before it |
| \`ANYFS_TOKEN\` | the token, for clients; \`--token-file\` goes before it |
`;

const cell = (text: string) => text.replaceAll("|", "\\|");

/** The whole page. "Default" is empty where leaving the key out means none. */
export function configurationPage(): string {
  let page = INTRODUCTION;
  for (const [name, { comment, keys }] of Object.entries(SECTIONS)) {
    page += `\n## ${name === "origins" ? "[[origins]]" : `[${name}]`}\n\n${comment}\n\n`;
    page += "| key | default | example | |\n|---|---|---|---|\n";
    for (const [key, { schema, sample, comment }] of Object.entries(keys)) {
      const given = "default" in schema ? schema.default : undefined;
      const preset = given === undefined ? "" : `\`${cell(JSON.stringify(given))}\``;
      page += `| \`${key}\` | ${preset} | \`${cell(sample)}\` | ${cell(comment)} |\n`;
    }
  }
  return page;
}

export const PAGE = new URL("../docs/configuration.md", import.meta.url);

if (import.meta.main) Deno.writeTextFileSync(PAGE, configurationPage());
