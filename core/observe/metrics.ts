/** Counters, gauges and histograms, in Prometheus' text exposition format 0.0.4. Names begin with `anyfs_`. */

export type Labels = Readonly<Record<string, string>>;

export interface Counter {
  /** Adds `by` (0 or more). @default 1 */
  add(by?: number, labels?: Labels): void;
}
export interface Gauge {
  set(value: number, labels?: Labels): void;
  add(by: number, labels?: Labels): void;
}
export interface Histogram {
  /** Notes one observation: seconds for durations, bytes for sizes. */
  observe(value: number, labels?: Labels): void;
}

/** Upper bounds in seconds for the duration of a request: 0.1 ms to 30 s. */
export const DURATION_BUCKETS: readonly number[] = [
  0.0001,
  0.0005,
  0.001,
  0.005,
  0.01,
  0.05,
  0.1,
  0.5,
  1,
  5,
  10,
  30,
];

/** More label combinations than this would make memory grow with use: the rest are counted together, labelled `other`. */
const MAX_SERIES = 1000;

interface Family {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  lines(): string[];
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

/** `{a="b"}`, sorted, so that equal labels are equal texts. */
function labelText(labels: Labels, extra = ""): string {
  const pairs = Object.keys(labels).sort().map((name) => `${name}="${escapeLabel(labels[name] ?? "")}"`);
  if (extra !== "") pairs.push(extra);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}

/** Values by label combination, never more than MAX_SERIES of them. */
class Series<T> {
  readonly all = new Map<string, { readonly labels: Labels; value: T }>();
  readonly #zero: () => T;

  constructor(zero: () => T) {
    this.#zero = zero;
  }

  at(labels: Labels): { readonly labels: Labels; value: T } {
    const key = labelText(labels);
    let found = this.all.get(key);
    if (found === undefined) {
      if (this.all.size >= MAX_SERIES) {
        const other = Object.fromEntries(Object.keys(labels).map((name) => [name, "other"]));
        if (labelText(other) !== key) return this.at(other);
      }
      found = { labels, value: this.#zero() };
      this.all.set(key, found);
    }
    return found;
  }
}

/** The metrics of one program. */
export class Metrics {
  readonly #families = new Map<string, Family>();
  readonly #collectors: (() => void)[] = [];

  #add(family: Family): void {
    if (!/^anyfs_[a-z][a-z0-9_]*$/.test(family.name)) throw new RangeError(`${family.name} is no metric name of ours`);
    if (this.#families.has(family.name)) throw new RangeError(`the metric ${family.name} exists already`);
    this.#families.set(family.name, family);
  }

  /** The name ends with `_total`. */
  counter(name: string, help: string): Counter {
    const series = new Series(() => 0);
    this.#addSimple(name, help, "counter", series);
    return {
      add(by = 1, labels = {}) {
        if (by > 0) series.at(labels).value += by;
      },
    };
  }

  gauge(name: string, help: string): Gauge {
    const series = new Series(() => 0);
    this.#addSimple(name, help, "gauge", series);
    return {
      set(value, labels = {}) {
        series.at(labels).value = value;
      },
      add(by, labels = {}) {
        series.at(labels).value += by;
      },
    };
  }

  #addSimple(name: string, help: string, type: "counter" | "gauge", series: Series<number>): void {
    const lines = () =>
      [...series.all.values()].map(({ labels, value }) => `${name}${labelText(labels)} ${numberText(value)}`);
    this.#add({ name, help, type, lines });
  }

  /** `buckets`: upper bounds, rising. */
  histogram(name: string, help: string, buckets: readonly number[] = DURATION_BUCKETS): Histogram {
    const series = new Series(() => ({ counts: new Array<number>(buckets.length).fill(0), count: 0, sum: 0 }));
    const lines = () =>
      [...series.all.values()].flatMap(({ labels, value }) => {
        let below = 0;
        const rows = buckets.map((bound, i) => {
          below += value.counts[i] ?? 0;
          return `${name}_bucket${labelText(labels, `le="${numberText(bound)}"`)} ${below}`;
        });
        return [
          ...rows,
          `${name}_bucket${labelText(labels, 'le="+Inf"')} ${value.count}`,
          `${name}_sum${labelText(labels)} ${numberText(value.sum)}`,
          `${name}_count${labelText(labels)} ${value.count}`,
        ];
      });
    this.#add({ name, help, type: "histogram", lines });
    return {
      observe(observed, labels = {}) {
        const { value } = series.at(labels);
        const bucket = buckets.findIndex((bound) => observed <= bound);
        if (bucket >= 0) value.counts[bucket] = (value.counts[bucket] ?? 0) + 1;
        value.count++;
        value.sum += observed;
      },
    };
  }

  /** Called before every exposition, to set gauges that are only known when asked. */
  beforeExposition(collect: () => void): void {
    this.#collectors.push(collect);
  }

  /** The text of `GET /metrics`; its content type is `text/plain; version=0.0.4; charset=utf-8`. */
  exposition(): string {
    for (const collect of this.#collectors) collect();
    let text = "";
    for (const family of [...this.#families.values()].sort((a, b) => a.name < b.name ? -1 : 1)) {
      const help = family.help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
      text += `# HELP ${family.name} ${help}\n# TYPE ${family.name} ${family.type}\n`;
      for (const line of family.lines()) text += `${line}\n`;
    }
    return text;
  }
}
