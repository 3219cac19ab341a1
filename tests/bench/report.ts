/** The table and the JSON that mount_bench leaves behind. */
import { SAFETY, type Target, type TargetName, TARGETS } from "./targets.ts";
import { type Figure, isRate, type Row, type Unit } from "./task.ts";

/** What was measured of one row on one target. */
export interface Cell {
  readonly figures: Figure[];
  /** Why there is nothing, or why there is no more. */
  problem?: string;
  /** The problem is that this target can't do it, which is no failure. */
  unsupported?: boolean;
}

export interface Line {
  readonly row: Row;
  readonly cells: Partial<Record<TargetName, Cell>>;
}

/** Where and how it was measured. */
export interface About {
  readonly at: string;
  readonly command: string;
  readonly program: string;
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  /** The type of the filesystem below everything. */
  readonly filesystem: string;
  readonly versions: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly seconds: number;
  /** One-minute load before the first row: on a quiet machine below 0.5. */
  readonly load: number;
  readonly missing: Readonly<Record<string, string>>;
}

/** The middle one, of an even number the smaller of the two in the middle; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? NaN;
}

const middle = (cell: Cell | undefined, of: (figure: Figure) => number | undefined): number | null => {
  const values = (cell?.figures ?? []).map(of).filter((value) => value !== undefined);
  return values.length === 0 ? null : median(values);
};
const valueOf = (cell: Cell | undefined) => middle(cell, (figure) => figure.value);

/** How many times AnyFS is better than the other; null where one of the two is missing. */
export function ratio(line: Line, other: TargetName): number | null {
  const own = valueOf(line.cells.anyfs);
  const theirs = valueOf(line.cells[other]);
  if (own === null || theirs === null) return null;
  const times = isRate(line.row.unit) ? own / theirs : theirs / own;
  return Number.isFinite(times) ? times : null;
}

function shown(value: number, unit: Unit): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toLocaleString("en", { maximumFractionDigits: digits })} ${unit === "ops/s" ? "/s" : unit}`;
}

function text(cell: Cell | undefined, unit: Unit): string {
  const value = valueOf(cell);
  if (value === null) return cell?.problem === undefined ? "" : cell.unsupported === true ? "no" : "failed";
  const [p50, p99] = [middle(cell, (figure) => figure.p50), middle(cell, (figure) => figure.p99)];
  const micros = (time: number) => time.toLocaleString("en", { maximumFractionDigits: time < 10 ? 1 : 0 });
  const latency = p50 === null || p99 === null ? "" : ` (${micros(p50)}, ${micros(p99)} µs)`;
  return shown(value, unit) + latency;
}

const times = (value: number | null) => value === null ? "" : `${value.toFixed(2)}x`;
const tabular = (rows: readonly (readonly string[])[]) => rows.map((cells) => `| ${cells.join(" | ")} |\n`).join("");

/** One line for the terminal. */
export const brief = (line: Line, names: readonly TargetName[]): string =>
  [
    line.row.title,
    ...names.map((name) => `${name} ${text(line.cells[name], line.row.unit)}`),
    `by rclone ${times(ratio(line, "rclone"))}`,
    `by disk ${times(ratio(line, "disk"))}`,
  ].join("  |  ");

/** Markdown, to be put into docs/benchmarks.md as it is. */
export function markdown(about: About, lines: readonly Line[], targets: readonly Target[]): string {
  const names = TARGETS.filter((name) => targets.some((target) => target.name === name));
  const disk = about.filesystem;
  const title = (name: TargetName) => name === "disk" ? disk : name;
  const table = tabular([
    ["", ...names.map(title), "by rclone", `by ${disk}`],
    ["---", ...names.map(() => "---:"), "---:", "---:"],
    ...lines.map((line) => [
      line.row.title,
      ...names.map((name) => text(line.cells[name], line.row.unit)),
      times(ratio(line, "rclone")),
      times(ratio(line, "disk")),
    ]),
  ]);
  const safety = tabular([
    ["", "when `close` has returned, the bytes are", "when `fsync` has returned"],
    ["---", "---", "---"],
    ...names.map((name) => [title(name), SAFETY[name].close, SAFETY[name].fsync]),
  ]);
  const problems = lines.flatMap(({ row, cells }) =>
    names.flatMap((name) => {
      const problem = cells[name]?.problem;
      return problem === undefined ? [] : [`- ${row.id}, ${name}: ${problem.split("\n")[0]}\n`];
    })
  );
  const missing = Object.entries(about.missing).map(([name, why]) => `- ${name} is not in the table: ${why}\n`);
  const versions = Object.entries(about.versions).map(([name, version]) => `${name} ${version}`).join(", ");
  return `    ${about.command}

${
    about.at.slice(0, 10)
  }; ${about.program}; ${about.cores} cores (${about.cpu}), Linux ${about.kernel}, ${about.filesystem};
${versions}. Medians of ${about.rounds} round(s), of fewer for rows that take long; the systems take turns in each round. In
parentheses p50 and p99 of one operation. Load before the first row: ${about.load}. ${
    Math.round(about.seconds)
  } s in all.
"by rclone" is how many times AnyFS is faster, above 1, or slower. "null" is a filesystem that holds nothing, served by the
same protocol code, and for whole trees one in memory: what the protocol alone costs. sshfs and rclone serve a folder of
the same ${disk}; sshfs through an sshd on the loopback address. "Dropped" means the kernel's cache of the mount, not the
cache below it; on ${disk} itself it is the only one.

${table}
${safety}
${[...missing, ...problems].join("")}`;
}
