/** Asks a running server something by its control socket (JSON-RPC 2.0). */
import { FsError, isFsErrorCode } from "../fs/error.ts";
import { connectLocal } from "../platform/sockets.ts";

/** Throws unavailable when nobody listens there, and what the server answers. */
export async function callControl(socket: string, method: string, params: Record<string, unknown>): Promise<unknown> {
  const connection = await connectLocal(socket);
  try {
    await connection.write(new TextEncoder().encode(`${JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })}\n`));
    const decoder = new TextDecoder();
    let text = "";
    for await (const bytes of connection.readable) {
      text += decoder.decode(bytes, { stream: true });
      if (text.includes("\n")) break;
    }
    if (text === "") {
      throw new FsError("unavailable", `the server closed ${socket} without an answer`, { path: socket });
    }
    const answer = JSON.parse(text) as {
      result?: unknown;
      error?: { message: string; data?: { code?: unknown; path?: string } };
    };
    if (answer.error === undefined) return answer.result;
    const code = answer.error.data?.code;
    throw new FsError(isFsErrorCode(code) ? code : "internal", answer.error.message, { operation: method });
  } finally {
    connection.close();
  }
}
