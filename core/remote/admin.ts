/** What an administrator asks a running server, by REST or by the control socket: one set of functions for both. */
import { FsError } from "../fs/error.ts";
import type { WalEntry } from "../index/packs.ts";
import type { EvictReport } from "../indexed/core.ts";
import { TierBit } from "../fs/stat.ts";
import { createToken, type Scope } from "./auth.ts";
import type { Index } from "../index/index.ts";
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import type { ServerContext } from "./context.ts";
import { checkPath } from "./url_path.ts";

const TIER_NAMES: Readonly<Record<number, string>> = {
  [TierBit.local]: "local",
  [TierBit.nas]: "nas",
  [TierBit.s3]: "s3",
};

export function walJson(entry: WalEntry): Record<string, unknown> {
  return {
    id: entry.id,
    tier: TIER_NAMES[entry.tier] ?? String(entry.tier),
    op: entry.op,
    pack: entry.packId,
    object: entry.object,
    bytes: entry.bytes,
    attempts: entry.attempts,
    not_before: entry.notBefore,
    last_error: entry.lastError,
    created: entry.created,
    state: entry.lastError !== null ? "failing" : entry.object === null && entry.op === "put" ? "filling" : "pending",
  };
}

export async function status(context: ServerContext): Promise<Record<string, unknown>> {
  const { core, clock } = context;
  const [counts, wal, tiers, seq, space] = await Promise.all([
    core.index.counts(),
    core.index.walCount(),
    core.tiers.status(),
    core.index.lastSeq(),
    core.fs.statFs(),
  ]);
  return {
    version: context.version,
    run: context.run,
    epoch: core.index.epoch,
    uptime_secs: Math.round((clock.now() - context.started) / 1000),
    tree: { nodes: counts.nodes, bytes: counts.bytes, total: space.total, free: space.free },
    tiers: tiers.map((tier) => ({
      name: tier.name,
      bit: tier.bit,
      place: tier.place,
      bytes: tier.bytes,
      high_watermark: tier.highWatermark,
      low_watermark: tier.lowWatermark,
      healthy: tier.healthy,
      last_error: tier.lastError,
      free: tier.free,
    })),
    wal,
    seq,
    clients: context.connectedDevices().length,
  };
}

export async function devices(context: ServerContext): Promise<Record<string, unknown>> {
  const connected = new Set(context.connectedDevices());
  const known = await context.core.index.devices();
  return {
    devices: known.map((device) => ({
      number: device.no,
      id: device.id,
      host: device.host,
      connected: connected.has(device.no),
      first_seen: new Date(device.firstSeen).toISOString(),
      last_seen: new Date(device.lastSeen).toISOString(),
      last_request: device.lastRequest,
    })),
  };
}

/** Entries of the write-ahead log with an id above `after`. */
export async function walList(
  context: ServerContext,
  after: number,
  limit: number,
): Promise<Record<string, unknown>> {
  const count = await context.core.index.walCount();
  const page = await context.core.index.walPage(after, limit);
  const last = page.at(-1);
  return {
    ...count,
    wal: page.map(walJson),
    cursor: page.length === limit && last !== undefined ? last.id : null,
  };
}

/** Throws not_found for an id that is not in the log. */
export async function walRetry(context: ServerContext, id: number | null): Promise<Record<string, unknown>> {
  const woken = await context.core.tiers.retry(id);
  if (id !== null && woken === 0) {
    throw new FsError("not_found", `the log has no entry ${id}; see "anyfs wal ls"`, { path: String(id) });
  }
  return { retried: woken };
}

export interface EvictRequest {
  readonly tier?: string | undefined;
  readonly to?: number | undefined;
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export async function evict(context: ServerContext, request: EvictRequest): Promise<Record<string, unknown>> {
  const { tier, to, dryRun, signal } = request;
  if (tier !== undefined && tier !== "local" && tier !== "nas") {
    throw new FsError(
      "invalid_input",
      tier === "s3"
        ? "the s3 tier is the source of truth and is never evicted; give --tier local or nas"
        : `there is no tier ${JSON.stringify(tier)}; give local or nas`,
    );
  }
  const reports: EvictReport[] = await context.core.tiers.evict({
    ...(tier !== undefined && { tier }),
    ...(to !== undefined && { to }),
    ...(dryRun !== undefined && { dryRun }),
    ...(signal !== undefined && { signal }),
  });
  return {
    reports: reports.map((report) => ({
      tier: report.tier,
      dry_run: report.dryRun,
      before: report.before,
      after: report.after,
      evicted: report.evicted,
      kept: report.kept,
    })),
  };
}

/** Waits until the log is empty. Throws timeout with what is left. */
export async function flush(
  context: ServerContext,
  timeoutMs: number | undefined,
  signal?: AbortSignal,
): Promise<Record<string, unknown>> {
  await context.core.tiers.flush({
    ...(timeoutMs !== undefined && { timeoutMs }),
    ...(signal !== undefined && { signal }),
  });
  return { ...await context.core.index.walCount() };
}

export async function scrub(
  context: ServerContext,
  options: { repair: boolean; deep: boolean; signal?: AbortSignal },
): Promise<Record<string, unknown>> {
  return { ...await context.core.tiers.scrub(options) };
}

/** Whoever keeps tokens: a running server, or a command that has opened its index. */
export interface TokenKeeper {
  readonly index: Pick<Index, "tokens" | "addToken" | "revokeToken">;
  readonly clock: Clock;
  readonly random: Random;
  /** What was known of tokens is not true any more. */
  changed(): void;
}
export function tokenKeeper(context: ServerContext): TokenKeeper {
  const { core: { index }, clock, random, auth } = context;
  return { index, clock, random, changed: () => auth.changed() };
}

export async function tokens(keeper: TokenKeeper): Promise<Record<string, unknown>> {
  return { tokens: (await keeper.index.tokens()).map(tokenJson) };
}
function tokenJson(token: { id: string; scope: string; path: string; created: number; expires: number | null }) {
  return {
    id: token.id,
    scope: token.scope,
    path: token.path,
    created: new Date(token.created).toISOString(),
    expires: token.expires === null ? null : new Date(token.expires).toISOString(),
  };
}

export async function makeToken(
  keeper: TokenKeeper,
  request: { scope: unknown; path: unknown; expiresInMs: unknown },
): Promise<Record<string, unknown>> {
  const { scope, expiresInMs } = request;
  if (scope !== "read" && scope !== "write" && scope !== "admin") {
    throw new FsError("invalid_input", "scope: read, write or admin");
  }
  const path = request.path === undefined || request.path === null ? "/" : checkPath(request.path);
  if (path !== "/" && scope === "admin") {
    throw new FsError("invalid_input", "an admin token is for the whole tree; leave the path out");
  }
  if (expiresInMs !== undefined && expiresInMs !== null && !(typeof expiresInMs === "number" && expiresInMs > 0)) {
    throw new FsError("invalid_input", "expires_in_ms: a number above 0");
  }
  const made = await createToken(keeper.index, keeper.random, keeper.clock, {
    scope: scope satisfies Scope,
    path,
    expires: typeof expiresInMs === "number" ? Math.floor(keeper.clock.now() + expiresInMs) : null,
  });
  keeper.changed();
  return { token: made.secret, ...tokenJson(made.info) };
}

/** Throws not_found. */
export async function revokeToken(keeper: TokenKeeper, id: unknown): Promise<Record<string, unknown>> {
  const revoked = typeof id === "string" && await keeper.index.revokeToken(id);
  keeper.changed();
  if (!revoked) {
    throw new FsError("not_found", `there is no token ${JSON.stringify(id)}; see "anyfs token ls"`, {
      path: String(id),
    });
  }
  return { revoked: id };
}
