/** Aligned columns of text. */
import { displayWidth, PLAIN, type Style } from "./style.ts";

export interface Column {
  readonly title: string;
  /** @default "left" */
  readonly align?: "left" | "right";
}

/**
 * Rows under their titles, columns two spaces apart, no spaces at the end of a line, a newline after each. Cells are printed
 * as they are: pass names through `printable`. With `titles: false` only the rows.
 */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  options: { style?: Style; titles?: boolean } = {},
): string {
  const style = options.style ?? PLAIN;
  const all = options.titles === false ? rows : [columns.map(({ title }) => style.bold(title)), ...rows];
  const widths = columns.map((_, i) => all.reduce((widest, row) => Math.max(widest, displayWidth(row[i] ?? "")), 0));
  return all.map((row) => {
    const cells = columns.map(({ align }, i) => {
      const cell = row[i] ?? "";
      const gap = " ".repeat((widths[i] ?? 0) - displayWidth(cell));
      return align === "right" ? gap + cell : cell + gap;
    });
    return `${cells.join("  ").trimEnd()}\n`;
  }).join("");
}
