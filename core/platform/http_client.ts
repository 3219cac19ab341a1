/** HTTP requests to others: one pool of connections with its own settings. HTTP/1.1 only (HTTP/2 stalls without TCP_NODELAY). */

export interface HttpClient {
  /** As the global fetch, over this pool. */
  fetch(request: Request): Promise<Response>;
  /** Drops idle connections. No request may follow. */
  close(): void;
}

export interface HttpClientOptions {
  /** Idle connections kept for each host. @default 64 */
  readonly maxIdle?: number;
}

export function openHttpClient(options: HttpClientOptions = {}): HttpClient {
  const client = Deno.createHttpClient({ http1: true, http2: false, poolMaxIdlePerHost: options.maxIdle ?? 64 });
  return {
    fetch: (request) => fetch(request, { client }),
    close: () => client.close(),
  };
}
