/** What the routes of the server share. */
import type { ServerCore } from "../indexed/core.ts";
import type { Clock } from "../platform/clock.ts";
import type { Random } from "../platform/random.ts";
import type { Access, Auth } from "./auth.ts";

export interface ServerContext {
  readonly core: ServerCore;
  readonly clock: Clock;
  readonly random: Random;
  readonly auth: Auth;
  readonly version: string;
  /** Id of this run of the server. */
  readonly run: string;
  /** `clock.now()` when it started. */
  readonly started: number;
  /** Numbers of the devices that are connected. */
  connectedDevices(): number[];
  /** Requests answered so far, by route and status. */
  readonly counts: Map<string, number>;
}

/** A request, its route found and its bearer known. */
export interface Call {
  readonly request: Request;
  readonly method: string;
  /** What follows the route's prefix: empty or beginning with `/`, percent-encoded. */
  readonly rest: string;
  readonly query: URLSearchParams;
  readonly access: Access;
  readonly signal: AbortSignal;
}
