/** A TCP proxy that breaks on command: refuses, falls silent, cuts connections in the middle, answers late. */

export interface FaultProxy extends AsyncDisposable {
  /** Port on 127.0.0.1; stays the same. */
  readonly port: number;
  /** Connections accepted so far. */
  readonly accepted: number;
  /** Works again, also for connections that had fallen silent. */
  pass(): void;
  /** Connections are refused (ECONNREFUSED), existing ones cut. */
  refuse(): void;
  /** A black hole: connections are accepted, and no byte passes in either direction. */
  hang(): void;
  /** Every connection is cut once `bytes` more have come from the server, or gone to it. Resolves at the first cut. */
  cutAfter(bytes: number, direction: "from server" | "to server"): Promise<void>;
  /** Cuts every connection on which the client sends this text, as in a request line. */
  cutWhenSent(text: string): void;
  /** The next request that begins with this text reaches the server; its connection is cut when the answer comes. Once. */
  loseAnswerTo(text: string): void;
  /** Every piece takes `ms` longer. */
  delay(ms: number): void;
}

type Mode =
  | { readonly kind: "pass" | "refuse" | "hang" }
  | { readonly kind: "cut"; left: number; readonly direction: string; readonly onCut: () => void }
  | { readonly kind: "match"; readonly text: string }
  | { readonly kind: "delay"; readonly ms: number };

const latin1 = new TextDecoder("latin1");

/** @param target `host:port` or a URL to forward to */
export function startFaultProxy(target: string): FaultProxy {
  const url = new URL(target.includes("://") ? target : `tcp://${target}`);
  const upstream = { hostname: url.hostname, port: Number(url.port) };
  let mode: Mode = { kind: "pass" };
  let changed = Promise.withResolvers<void>();
  let listener: Deno.TcpListener | undefined;
  let accepted = 0;
  let lose: string | undefined;
  const open = new Set<Deno.TcpConn>();

  const close = (conn: Deno.TcpConn) => {
    if (!open.delete(conn)) return;
    try {
      conn.close();
    } catch {
      // Closed by its own failure already.
    }
  };
  const set = (next: Mode) => {
    mode = next;
    changed.resolve();
    changed = Promise.withResolvers();
    if (next.kind === "refuse") {
      listener?.close();
      listener = undefined;
      for (const conn of [...open]) close(conn);
    } else listener ??= listen(port);
  };

  async function pump(from: Deno.TcpConn, to: Deno.TcpConn, direction: string, link: { doomed: boolean }) {
    const buffer = new Uint8Array(65536);
    try {
      while (true) {
        const n = await from.read(buffer);
        while (mode.kind === "hang") await changed.promise;
        if (mode.kind === "delay") await new Promise((done) => setTimeout(done, mode.kind === "delay" ? mode.ms : 0));
        if (n === null) break;
        let piece = buffer.subarray(0, n);
        if (direction === "from server" && link.doomed) break;
        if (direction === "to server" && lose !== undefined && latin1.decode(piece).startsWith(lose)) {
          lose = undefined;
          link.doomed = true;
        }
        if (mode.kind === "match" && direction === "to server" && latin1.decode(piece).includes(mode.text)) break;
        if (mode.kind === "cut" && mode.direction === direction) {
          piece = piece.subarray(0, mode.left);
          mode.left -= piece.length;
        }
        for (let at = 0; at < piece.length;) at += await to.write(piece.subarray(at));
        if (mode.kind === "cut" && mode.direction === direction && mode.left === 0) {
          mode.onCut();
          break;
        }
      }
    } catch {
      // Either side is gone: so is the other.
    }
    close(from);
    close(to);
  }

  function listen(at: number): Deno.TcpListener {
    const made = Deno.listen({ hostname: "127.0.0.1", port: at });
    (async () => {
      for await (const client of made) {
        accepted++;
        open.add(client);
        Deno.connect(upstream).then((server) => {
          open.add(server);
          const link = { doomed: false };
          pump(client, server, "to server", link);
          pump(server, client, "from server", link);
        }, () => close(client));
      }
    })();
    return made;
  }

  listener = listen(0);
  const port = listener.addr.port;
  return {
    port,
    get accepted() {
      return accepted;
    },
    pass: () => set({ kind: "pass" }),
    refuse: () => set({ kind: "refuse" }),
    hang: () => set({ kind: "hang" }),
    cutAfter: (bytes, direction) => new Promise((onCut) => set({ kind: "cut", left: bytes, direction, onCut })),
    loseAnswerTo: (text) => {
      lose = text;
    },
    cutWhenSent: (text) => set({ kind: "match", text }),
    delay: (ms) => set({ kind: "delay", ms }),
    [Symbol.asyncDispose]() {
      set({ kind: "refuse" });
      return Promise.resolve();
    },
  };
}
