/** The file that `anyfs config init` writes: every key with a comment; those without a default commented out. */
import * as v from "valibot";
import { SECTIONS } from "./schema.ts";

/** Sections that are no part of a setup without further stores: the whole table stays commented out. */
const OPTIONAL = new Set(["tiers.nas", "tiers.s3", "origins"]);

const INTRODUCTION =
  `# AnyFS configuration. Every key may be left out; what is commented out has no default or shows an example.
# Sizes: 10M, 1.5G, 200GiB; times: 30s, 5m, 7d; rates: 10M (bytes a second). Relative paths are below this file's folder.
# Secrets never stand here: name an environment variable (password_env) or a file readable by its owner only.
# Check it with: anyfs config check
`;

/** Is there a value when the key is left out? Then the file may show it as it is. */
function hasDefault(schema: v.GenericSchema): boolean {
  return schema.type === "optional" && "default" in schema && schema.default !== undefined;
}

/** TOML text; `parse` of it gives the same configuration as no file at all. */
export function annotatedDefault(): string {
  let text = INTRODUCTION;
  for (const [name, { comment, keys }] of Object.entries(SECTIONS)) {
    const off = OPTIONAL.has(name);
    const header = name === "origins" ? "[[origins]]" : `[${name}]`;
    text += `\n# ${comment}\n${off ? "# " : ""}${header}\n`;
    for (const [keyName, { schema, sample, comment }] of Object.entries(keys)) {
      const setting = `${off || !hasDefault(schema) ? "# " : ""}${keyName} = ${sample}`;
      text += setting.length < 40 ? `${setting.padEnd(40)}# ${comment}\n` : `# ${comment}\n${setting}\n`;
    }
  }
  return text;
}
