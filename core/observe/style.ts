/** Colours for terminals, and names made safe to print. */

export interface Style {
  bold(text: string): string;
  dim(text: string): string;
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  cyan(text: string): string;
}

const sgr = (on: number, off: number) => (text: string) => text === "" ? "" : `\x1b[${on}m${text}\x1b[${off}m`;
const as = (text: string) => text;

/** ECMA-48 SGR. */
export const COLOURS: Style = {
  bold: sgr(1, 22),
  dim: sgr(2, 22),
  red: sgr(31, 39),
  green: sgr(32, 39),
  yellow: sgr(33, 39),
  cyan: sgr(36, 39),
};
export const PLAIN: Style = { bold: as, dim: as, red: as, green: as, yellow: as, cyan: as };

/** Colours only on a terminal that isn't dumb, and never when NO_COLOR is set and not empty (no-color.org). */
export function styleFor(isTerminal: boolean, env: (name: string) => string | undefined): Style {
  return isTerminal && (env("NO_COLOR") ?? "") === "" && env("TERM") !== "dumb" ? COLOURS : PLAIN;
}

/** Control characters (C0, DEL, C1), and halves of surrogate pairs that stand alone. */
const UNPRINTABLE =
  // deno-lint-ignore no-control-regex
  /[\u0000-\u001f\u007f-\u009f]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/**
 * A name as a terminal may get it: control characters, which could move the cursor or colour the rest, and bytes that are
 * not UTF-8 (lone surrogates, core/fs/names) become `\xNN`.
 */
export function printable(name: string): string {
  return name.replace(UNPRINTABLE, (c) => {
    const code = c.charCodeAt(0);
    const byte = code >= 0xdc80 && code <= 0xdcff ? code - 0xdc00 : code;
    return byte <= 0xff ? `\\x${byte.toString(16).padStart(2, "0")}` : `\\u${byte.toString(16)}`;
  });
}

/** Unicode's East Asian wide and full-width blocks (UAX 11), coarsely, and emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1f64f}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]/u;
const MARK = /\p{Mark}|\u200d/u;

/** Columns a text takes on a terminal; colour codes take none. */
export function displayWidth(text: string): number {
  let width = 0;
  // deno-lint-ignore no-control-regex
  for (const c of text.replace(/\x1b\[[0-9;]*m/g, "")) {
    if (!MARK.test(c)) width += WIDE.test(c) ? 2 : 1;
  }
  return width;
}
