/** A real ServerCore with one local tier in a temporary folder, and a server on top: what most tests here talk to. */
import { openLocalObjectStore } from "../../../backends/local/object_store.ts";
import { type OpenServerCore, openServerCore, type ServerCoreConfig } from "../../indexed/open_core.ts";
import { type RemoteServer, type RemoteServerOptions, serveRemote } from "../server.ts";

export interface TempServer extends AsyncDisposable {
  readonly core: OpenServerCore;
  readonly server: RemoteServer;
  readonly url: string;
}

export async function openTempCore(
  folder: string,
  config: Partial<ServerCoreConfig> = {},
): Promise<OpenServerCore> {
  const path = `${folder}/hot`;
  await Deno.mkdir(path, { recursive: true });
  const store = await openLocalObjectStore({ folder: path });
  return await openServerCore({
    stateDir: `${folder}/state`,
    tiers: { local: { store, path, place: path } },
    workers: 1,
    reserveBytes: 0,
    ...config,
  });
}

export async function startTempServer(options: Partial<RemoteServerOptions> = {}): Promise<TempServer> {
  const folder = await Deno.makeTempDir({ prefix: "anyfs-remote-" });
  const core = await openTempCore(folder);
  const settings = { hostname: "127.0.0.1", port: 0, version: "test", ...options };
  const server = await serveRemote(core, settings).catch(async (error) => {
    await core.close();
    await Deno.remove(folder, { recursive: true });
    throw error;
  });
  return {
    core,
    server,
    url: server.url,
    async [Symbol.asyncDispose]() {
      await server.close(1000);
      await core.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}
