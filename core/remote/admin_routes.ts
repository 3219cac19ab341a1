/** `/v1/status`, `/v1/devices` and `/v1/admin/*`. */
import { FsError } from "../fs/error.ts";
import * as admin from "./admin.ts";
import { requireScope } from "./auth.ts";
import { readJson } from "./body.ts";
import type { Call, ServerContext } from "./context.ts";
import { methodNotAllowed } from "./file_routes.ts";
import { jsonResponse } from "./problem.ts";

export async function status(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET") return methodNotAllowed("GET");
  requireScope(call.access, "read");
  return jsonResponse(await admin.status(context));
}

export async function devices(context: ServerContext, call: Call): Promise<Response> {
  if (call.method !== "GET") return methodNotAllowed("GET");
  requireScope(call.access, "admin");
  return jsonResponse(await admin.devices(context));
}

/** Fields of the JSON body or, for those who only type a URL, of the query. */
async function fields(call: Call): Promise<Record<string, unknown>> {
  const body = call.method === "POST" ? await readJson(call.request) : {};
  return { ...Object.fromEntries(call.query), ...body };
}

function natural(value: unknown, name: string): number | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  const number = typeof value === "string" ? Number(value) : value;
  if (typeof number !== "number" || !Number.isSafeInteger(number) || number < 0) {
    throw new FsError("invalid_input", `${name}: a whole number of 0 or more is needed`);
  }
  return number;
}
function flag(value: unknown): boolean {
  return value === true || value === "true" || value === "1";
}

type Route = (context: ServerContext, call: Call) => Promise<Response>;

const ROUTES: Readonly<Record<string, readonly [method: string, route: Route]>> = {
  "/wal": ["GET", async (context, call) => {
    const limit = Math.min(natural(call.query.get("limit"), "limit") ?? 1000, 10_000);
    return jsonResponse(await admin.walList(context, natural(call.query.get("cursor"), "cursor") ?? 0, limit));
  }],
  "/wal/retry": ["POST", async (context, call) => {
    const { id } = await fields(call);
    return jsonResponse(await admin.walRetry(context, natural(id, "id") ?? null));
  }],
  "/flush": ["POST", async (context, call) => {
    const { timeout_ms } = await fields(call);
    return jsonResponse(await admin.flush(context, natural(timeout_ms, "timeout_ms"), call.signal));
  }],
  "/evict": ["POST", async (context, call) => {
    const { tier, to, dry_run } = await fields(call);
    return jsonResponse(
      await admin.evict(context, {
        tier: tier === undefined ? undefined : String(tier),
        to: natural(to, "to"),
        dryRun: flag(dry_run),
        signal: call.signal,
      }),
    );
  }],
  "/scrub": ["POST", async (context, call) => {
    const { repair, deep } = await fields(call);
    return jsonResponse(
      await admin.scrub(context, { repair: flag(repair), deep: flag(deep), signal: call.signal }),
    );
  }],
  "/tokens/revoke": ["POST", async (context, call) => {
    return jsonResponse(await admin.revokeToken(admin.tokenKeeper(context), (await fields(call)).id));
  }],
};

export async function adminRoutes(context: ServerContext, call: Call): Promise<Response> {
  requireScope(call.access, "admin");
  if (call.rest === "/tokens") {
    if (call.method === "GET") return jsonResponse(await admin.tokens(admin.tokenKeeper(context)));
    if (call.method !== "POST") return methodNotAllowed("GET, POST");
    const { scope, path, expires_in_ms } = await fields(call);
    return jsonResponse(
      await admin.makeToken(admin.tokenKeeper(context), { scope, path, expiresInMs: expires_in_ms }),
      201,
    );
  }
  const found = Object.hasOwn(ROUTES, call.rest) ? ROUTES[call.rest] : undefined;
  if (found === undefined) throw new FsError("not_found", `there is no /v1/admin${call.rest.slice(0, 80)}`);
  const [method, route] = found;
  return call.method === method ? await route(context, call) : methodNotAllowed(method);
}
