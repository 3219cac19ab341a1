/** `anyfs token`: makes, lists and revokes the tokens of this machine's server, or with --server of another one. */
import { Option } from "@commander-js/extra-typings";
import { FsError, hasCode } from "../core/fs/error.ts";
import { systemClock } from "../core/platform/clock.ts";
import { info } from "../core/platform/files.ts";
import { systemRandom } from "../core/platform/random.ts";
import { durationArgument, treePath } from "./arguments.ts";
import type { Context } from "./context.ts";
import { example } from "./example.ts";
import type { CommandModule, Start } from "./module.ts";
import { prepareFirstStart } from "./first_start.ts";
import { withRemote } from "./remote.ts";

interface CreateOptions {
  readonly scope: "read" | "write" | "admin";
  readonly path?: string;
  /** Milliseconds from now. */
  readonly expires?: number;
}
interface Token {
  readonly id: string;
  readonly scope: string;
  readonly path: string;
  readonly created: string;
  readonly expires: string | null;
}

/** What can be asked of whoever keeps the tokens. */
type Ask = (method: "create" | "list" | "revoke", params: Record<string, unknown>) => Promise<unknown>;

/** The server named by --server; else the one of this machine by its control socket; else the state folder itself. */
async function withTokens<T>(context: Context, work: (ask: Ask) => Promise<T>): Promise<T> {
  if (context.server() !== null) {
    return await withRemote(context, (tree) =>
      work((method, params) => {
        if (method === "list") return tree.getJson("/v1/admin/tokens", { signal: context.signal });
        const path = method === "create" ? "/v1/admin/tokens" : "/v1/admin/tokens/revoke";
        return tree.postJson(path, params, { signal: context.signal });
      }));
  }
  const config = await context.config();
  const { stateDir } = config.daemon;
  const socket = `${stateDir}/control.sock`;
  if (await info(socket) !== null) {
    const { callControl } = await import("../core/remote/control_client.ts");
    try {
      return await work((method, params) => callControl(socket, `token.${method}`, params));
    } catch (error) {
      // A socket file of a server that was killed.
      if (!hasCode(error, "unavailable")) throw error;
    }
  }
  // Making the index is a first start.
  await prepareFirstStart(config);
  return await withIndex(stateDir, work);
}

/** No server runs: its state folder is ours for a moment. */
async function withIndex<T>(stateDir: string, work: (ask: Ask) => Promise<T>): Promise<T> {
  const [{ openStateFolder }, { SqliteIndex }, admin] = await Promise.all([
    import("../core/indexed/state_folder.ts"),
    import("../core/index/sqlite_index.ts"),
    import("../core/remote/admin.ts"),
  ]);
  using folder = await openStateFolder(stateDir);
  const index = new SqliteIndex({
    path: folder.indexPath,
    clock: systemClock,
    random: systemRandom,
    hotBit: 1,
    targets: [],
    data: { hasUnsynced: () => false, sync: () => Promise.resolve() },
  });
  const keeper = { index, clock: systemClock, random: systemRandom, changed: () => {} };
  try {
    return await work((method, params) => {
      if (method === "list") return admin.tokens(keeper);
      if (method === "revoke") return admin.revokeToken(keeper, params["id"]);
      const { scope, path, expires_in_ms } = params;
      return admin.makeToken(keeper, { scope, path, expiresInMs: expires_in_ms });
    });
  } finally {
    await index.close();
  }
}

async function create(context: Context, options: CreateOptions): Promise<void> {
  const { scope, path, expires } = options;
  await withTokens(context, async (ask) => {
    const made = await ask("create", {
      scope,
      ...(path !== undefined && { path }),
      ...(expires !== undefined && { expires_in_ms: expires }),
    }) as Token & { token: string };
    context.out.data(made, () => `${made.token}\n`);
    context.out.remark(
      `token ${made.id}: ${made.scope} on ${made.path}${made.expires === null ? "" : `, until ${made.expires}`}; ` +
        "it is shown this once. Keep it in a file only you can read (chmod 600) and use --token-file",
    );
  });
}

const COLUMNS = [{ title: "ID" }, { title: "SCOPE" }, { title: "PATH" }, { title: "CREATED" }, { title: "EXPIRES" }];

async function list(context: Context): Promise<void> {
  await withTokens(context, async (ask) => {
    const { tokens } = await ask("list", {}) as { tokens: Token[] };
    context.out.table(tokens, COLUMNS, (token) => [
      token.id,
      token.scope,
      token.path,
      token.created,
      token.expires ?? "never",
    ]);
  });
}

async function revoke(context: Context, id: string): Promise<void> {
  if (!/^[0-9a-f]{12}$/.test(id)) {
    throw new FsError("invalid_input", `${JSON.stringify(id.slice(0, 40))} is no token's id; see "anyfs token ls"`);
  }
  await withTokens(context, async (ask) => {
    await ask("revoke", { id });
    context.out.data({ revoked: id }, () => `token ${id} is revoked\n`);
  });
}

export const command: CommandModule = {
  configure(command, start: Start) {
    const make = command.command("create").description("make a token; it is printed this once")
      .addOption(
        new Option("--scope <scope>", "what it may do").choices(["read", "write", "admin"] as const)
          .makeOptionMandatory(),
      )
      .option("--path <path>", "only this folder of the tree", treePath)
      .option("--expires <time>", "so long from now, for example 30d", durationArgument)
      .action((options) => start((context) => create(context, options)));
    example(make, "anyfs token create --scope write --expires 30d > token", "A token for a client, good for 30 days.");
    const ls = command.command("ls").description("list the tokens, not their secrets").action(() => start(list));
    example(ls, "anyfs token ls", "Id, scope, path and end of every token.");
    const end = command.command("revoke").description("end a token").argument("<id>", "its id")
      .action((id) => start((context) => revoke(context, id)));
    example(end, "anyfs token revoke 3f2a90c1d4e5", "Whoever uses it is refused from now on.");
    example(command, "anyfs token create --scope admin", "The first token, made on the server itself.");
  },
};
