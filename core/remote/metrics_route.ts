/** `GET /metrics`: Prometheus text format 0.0.4, all names beginning with `anyfs_`. */
import { requireScope } from "./auth.ts";
import type { Call, ServerContext } from "./context.ts";
import { methodNotAllowed } from "./file_routes.ts";

type Labels = Readonly<Record<string, string>>;

function sample(name: string, labels: Labels, value: number): string {
  const text = Object.entries(labels).map(([key, label]) =>
    `${key}="${label.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")}"`
  ).join(",");
  return `${name}${text === "" ? "" : `{${text}}`} ${value}`;
}

class Page {
  readonly #lines: string[] = [];
  add(name: string, type: "gauge" | "counter", help: string, samples: readonly (readonly [Labels, number | null])[]) {
    const known = samples.filter((each): each is readonly [Labels, number] => each[1] !== null);
    if (known.length === 0) return;
    this.#lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const [labels, value] of known) this.#lines.push(sample(name, labels, value));
  }
  text(): string {
    return this.#lines.join("\n") + "\n";
  }
}

export async function metrics(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET") return methodNotAllowed("GET");
  requireScope(call.access, "read");
  const { core } = context;
  const [counts, wal, tiers, seq] = await Promise.all([
    core.index.counts(),
    core.index.walCount(),
    core.tiers.status(),
    core.index.lastSeq(),
  ]);
  const page = new Page();
  const by = (pick: (tier: (typeof tiers)[number]) => number | null) =>
    tiers.map((tier) => [{ tier: tier.name }, pick(tier)] as const);
  page.add("anyfs_info", "gauge", "Version of the server; always 1.", [[{ version: context.version }, 1]]);
  page.add("anyfs_uptime_seconds", "gauge", "Seconds since the server started.", [[
    {},
    Math.max(0, (context.clock.now() - context.started) / 1000),
  ]]);
  page.add("anyfs_nodes", "gauge", "Files, directories and links in the tree.", [[{}, counts.nodes]]);
  page.add("anyfs_tree_bytes", "gauge", "Bytes of all files of the tree.", [[{}, counts.bytes]]);
  page.add("anyfs_change_seq", "counter", "Number of the latest change.", [[{}, seq]]);
  page.add("anyfs_tier_bytes", "gauge", "Bytes of packs on the tier.", by((tier) => tier.bytes));
  page.add("anyfs_tier_healthy", "gauge", "1 when the tier answers.", by((tier) => tier.healthy ? 1 : 0));
  page.add("anyfs_tier_free_bytes", "gauge", "Free bytes of the tier's place.", by((tier) => tier.free));
  page.add("anyfs_tier_high_watermark_bytes", "gauge", "Eviction starts above.", by((tier) => tier.highWatermark));
  page.add("anyfs_tier_low_watermark_bytes", "gauge", "Eviction ends at.", by((tier) => tier.lowWatermark));
  page.add("anyfs_wal_entries", "gauge", "Work that still has to reach a tier.", [[{}, wal.entries]]);
  page.add("anyfs_wal_bytes", "gauge", "Bytes that still have to reach a tier.", [[{}, wal.bytes]]);
  page.add("anyfs_clients_connected", "gauge", "Mounts that are connected.", [[
    {},
    context.connectedDevices().length,
  ]]);
  page.add(
    "anyfs_http_requests_total",
    "counter",
    "HTTP requests answered.",
    [...context.counts].sort().map(([key, count]) => {
      const [route = "", status = ""] = key.split(" ");
      return [{ route, status }, count] as const;
    }),
  );
  return new Response(page.text(), {
    headers: { "content-type": "text/plain; version=0.0.4; charset=utf-8", "cache-control": "no-store, no-transform" },
  });
}
