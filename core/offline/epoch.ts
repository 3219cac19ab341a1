/**
 * Is the server that answers the one we know? One that was restored from a backup has forgotten what it once confirmed to
 * be on its disk: going on would take its gaps for removals by others. Then the client stops and asks.
 */
import { FsError } from "../fs/error.ts";
import type { ServerLink, Welcome } from "../remote/protocol.ts";

export interface KnownServer {
  /** The epoch of its tree; null: never connected. */
  readonly epoch: string | null;
  /** The highest request number of ours that it said is on its disk. */
  readonly durable: number;
}

const DECIDE =
  'decide with "anyfs wal resolve --journal --epoch keep-server" (its tree holds; what was not delivered ' +
  'is sent as usual) or "--epoch keep-mine" (what is here is sent to it again)';

/** Why the client must not go on; null: it may. */
export function whyStop(known: KnownServer, welcome: Welcome): string | null {
  if (known.epoch === null) return null;
  if (welcome.epoch !== known.epoch) return `the server has another tree than before (another epoch): ${DECIDE}`;
  if (welcome.lastRequest < known.durable) {
    return `the server was restored from an older backup (it knows our changes up to ${welcome.lastRequest}, ` +
      `but had confirmed ${known.durable}): ${DECIDE}`;
  }
  return null;
}

/** The link, whose calls fail while `stopped` gives a reason. */
export function gated(link: ServerLink, stopped: () => string | null): ServerLink {
  const refuse = () => {
    const reason = stopped();
    return reason === null ? null : new FsError("unavailable", reason);
  };
  return {
    call: (method, params, options) => {
      const error = refuse();
      return error === null ? link.call(method, params, options) : Promise.reject(error);
    },
    putChunks: (chunks, signal) => {
      const error = refuse();
      return error === null ? link.putChunks(chunks, signal) : Promise.reject(error);
    },
    // Immutable and verified: the same bytes whoever has them.
    readContent: (...what) => link.readContent(...what),
    get connected() {
      return link.connected && stopped() === null;
    },
    onUp: (listener) => link.onUp(listener),
    onDown: (listener) => link.onDown(listener),
    onPush: (kind, listener) =>
      link.onPush(kind, (value) => {
        if (stopped() === null) listener(value);
      }),
    get resumeFrom() {
      return link.resumeFrom;
    },
    set resumeFrom(value) {
      link.resumeFrom = value;
    },
    check: () => link.check(),
    pause: () => link.pause(),
    resume: () => link.resume(),
    close: () => link.close(),
  };
}
