/** Plots of series over time as an SVG text: one panel below the other, each with its own scale. */

export interface Series {
  readonly name: string;
  /** [seconds, value] in order of time. */
  readonly points: readonly (readonly [number, number])[];
}
export interface Panel {
  readonly title: string;
  readonly series: readonly Series[];
}

const WIDTH = 900;
const HEIGHT = 170;
const LEFT = 70;
const RIGHT = 190;
const TOP = 30;
const BOTTOM = 26;
const COLOURS = ["#1f6fb4", "#d1661f", "#3a8f3a", "#8a56b0", "#8a8a2a"];

/** The next of 1, 2, 5 times a power of ten that is at least `value`. */
function round(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  for (const step of [1, 2, 5]) if (step * power >= value) return step * power;
  return 10 * power;
}
const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** Marks (seconds) are drawn as thin lines through all panels. */
export function plot(title: string, panels: readonly Panel[], marks: readonly number[] = []): string {
  const out: string[] = [];
  const seconds = Math.max(
    1,
    ...panels.flatMap(({ series }) => series.flatMap(({ points }) => points.map(([t]) => t))),
  );
  const x = (t: number) => (LEFT + t / seconds * (WIDTH - LEFT - RIGHT)).toFixed(1);
  panels.forEach((panel, i) => {
    const top = 40 + i * (HEIGHT + TOP);
    const bottom = top + HEIGHT - BOTTOM;
    const most = round(Math.max(1, ...panel.series.flatMap(({ points }) => points.map(([, v]) => v))));
    const y = (v: number) => (bottom - v / most * (bottom - top - 10)).toFixed(1);
    out.push(`<text x="${LEFT}" y="${top}" font-weight="bold">${escape(panel.title)}</text>`);
    for (const part of [0, 0.5, 1]) {
      const at = y(part * most);
      out.push(`<path d="M${LEFT} ${at}H${WIDTH - RIGHT}" stroke="#ddd"/>`);
      out.push(`<text x="${LEFT - 6}" y="${Number(at) + 4}" text-anchor="end">${part * most}</text>`);
    }
    for (const mark of marks) out.push(`<path d="M${x(mark)} ${top + 6}V${bottom}" stroke="#e7c9c9"/>`);
    panel.series.forEach(({ name, points }, s) => {
      const colour = COLOURS[s % COLOURS.length];
      const path = points.map(([t, v], p) => `${p === 0 ? "M" : "L"}${x(t)} ${y(v)}`).join("");
      out.push(`<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.3"/>`);
      out.push(`<text x="${WIDTH - RIGHT + 10}" y="${top + 20 + s * 16}" fill="${colour}">${escape(name)}</text>`);
    });
    for (let part = 0; part <= 4; part++) {
      const t = seconds * part / 4;
      out.push(
        `<text x="${x(t)}" y="${bottom + 15}" text-anchor="middle">${(t / 60).toFixed(seconds > 600 ? 0 : 1)}</text>`,
      );
    }
  });
  const height = 40 + panels.length * (HEIGHT + TOP) + 10;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n` +
    `<text x="${LEFT}" y="20" font-size="14">${escape(title)}</text>\n${out.join("\n")}\n` +
    `<text x="${WIDTH - RIGHT}" y="${height - 6}" text-anchor="end">minutes</text>\n</svg>\n`;
}
