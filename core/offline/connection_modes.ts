/**
 * ConnectionModes: online, reconnecting (the connection was lost a moment ago, or the first one is under way) or offline
 * (it did not come back within 15 s, nobody wants it, or the client has stopped itself). Each change is said in the log and
 * kept as an event. Also notices that the machine has slept, and has the connection checked then.
 */
import type { Clock } from "../platform/clock.ts";
import type { ServerLink } from "../remote/protocol.ts";

export type ConnectionMode = "online" | "offline" | "reconnecting";

/** What happened, for whoever watches a mount. */
export interface ModeEvent {
  /** Ascending from 1. */
  readonly id: number;
  /** Milliseconds since 1970. */
  readonly at: number;
  readonly event: "mode" | "wake" | "stopped";
  readonly mode: ConnectionMode;
  readonly reason: string;
}

/** So long a lost connection may take to come back until the mount says that it is offline. */
const OFFLINE_AFTER_MS = 15_000;
/** How often the two clocks are compared, and how far they may part: more is a sleep or a clock that was set. */
const WATCH_MS = 2000;
const JUMP_MS = 5000;
const EVENTS_KEPT = 256;

export class ConnectionModes {
  readonly #clock: Clock;
  readonly #log: (message: string) => void;
  readonly #link: Pick<ServerLink, "check">;
  #mode: ConnectionMode = "reconnecting";
  #reason = "not connected yet";
  #since: number;
  #stopped: string | null = null;
  #wanted = true;
  #cancelOffline: () => void = () => {};
  readonly #stopWatch: () => void;
  #wall: number;
  #steady: number;
  #events: ModeEvent[] = [];
  #lastEvent = 0;
  #waiting = new Set<() => void>();

  constructor(options: { clock: Clock; log: (message: string) => void; link: Pick<ServerLink, "check"> }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#link = options.link;
    this.#since = this.#clock.now();
    this.#wall = this.#since;
    this.#steady = this.#clock.monotonic();
    this.#stopWatch = this.#clock.every(WATCH_MS, () => this.#watch());
    this.#offlineSoon();
  }

  get mode(): ConnectionMode {
    return this.#mode;
  }
  status(): { mode_since: number; reason: string | null; stopped: string | null } {
    return { mode_since: this.#since, reason: this.#mode === "online" ? null : this.#reason, stopped: this.#stopped };
  }

  up(): void {
    this.#cancelOffline();
    this.#stopped = null;
    this.#set("online", "connected");
  }
  down(reason: string): void {
    this.#reason = reason;
    if (this.#mode !== "online") return;
    this.#set("reconnecting", reason);
    this.#offlineSoon();
  }
  /** Nobody wants a connection: offline at once. */
  unwanted(): void {
    this.#wanted = false;
    this.#cancelOffline();
    this.#set("offline", "it was told to work offline");
  }
  wanted(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#set("reconnecting", "it was told to connect");
    this.#offlineSoon();
  }
  /** The client does not go on with this server until somebody has decided. */
  stop(reason: string): void {
    this.#cancelOffline();
    this.#stopped = reason;
    this.#event("stopped", reason);
    this.#set("offline", reason);
  }

  #offlineSoon(): void {
    this.#cancelOffline();
    this.#cancelOffline = this.#clock.after(OFFLINE_AFTER_MS, () => this.#set("offline", this.#reason), true);
  }
  #set(mode: ConnectionMode, reason: string): void {
    this.#reason = reason;
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.#since = this.#clock.now();
    this.#log(
      mode === "online" ? "online" : `${mode}: ${reason}; what is here is served, and changes are kept and sent later`,
    );
    this.#event("mode", reason);
  }
  #event(event: ModeEvent["event"], reason: string): void {
    this.#events.push({ id: ++this.#lastEvent, at: this.#clock.now(), event, mode: this.#mode, reason });
    if (this.#events.length > EVENTS_KEPT) this.#events.shift();
    for (const wake of this.#waiting) wake();
  }
  #watch(): void {
    const wall = this.#clock.now();
    const steady = this.#clock.monotonic();
    const jump = (wall - this.#wall) - (steady - this.#steady);
    // A clock that counts on in sleep shows it by a watch that comes late.
    const late = steady - this.#steady - WATCH_MS;
    this.#wall = wall;
    this.#steady = steady;
    if (Math.abs(jump) < JUMP_MS && late < 3 * JUMP_MS) return;
    const away = Math.round(Math.max(Math.abs(jump), late) / 1000);
    this.#log(`the clock jumped by ${away} s (sleep, or it was set): the connection is checked`);
    this.#event("wake", `the clock jumped by ${away} s`);
    this.#link.check();
  }

  /** Events with a number above `after`, waiting up to `waitMs` for the first. */
  async events(after: number, waitMs: number): Promise<ModeEvent[]> {
    const found = () => this.#events.filter((event) => event.id > after);
    if (found().length === 0 && waitMs > 0) {
      const come = Promise.withResolvers<void>();
      this.#waiting.add(come.resolve);
      const cancel = this.#clock.after(waitMs, come.resolve, true);
      await come.promise;
      cancel();
      this.#waiting.delete(come.resolve);
    }
    return found();
  }
  close(): void {
    this.#cancelOffline();
    this.#stopWatch();
    for (const wake of this.#waiting) wake();
  }
}
