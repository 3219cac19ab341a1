/** A filesystem as one flat map, simple enough to be right at a glance: what the real ones are compared with. */
import type { FsErrorCode } from "../../core/fs/error.ts";
import { dirname, isWithin } from "../../core/fs/path.ts";

/** Text of a file, or null for a directory. */
type Node = string | null;
export type Outcome = FsErrorCode | "ok" | { readonly text: string } | { readonly names: readonly string[] };

export type Operation =
  | { readonly op: "write" | "append"; readonly path: string; readonly text: string }
  | { readonly op: "truncate"; readonly path: string; readonly size: number }
  | { readonly op: "rename" | "copy"; readonly path: string; readonly to: string }
  | {
    readonly op: "read" | "list" | "createDir" | "createDirAll" | "removeFile" | "removeDir" | "removeDirAll";
    readonly path: string;
  };

export class Model {
  readonly nodes = new Map<string, Node>([["/", null]]);

  #is(path: string): "file" | "directory" | "missing" {
    const node = this.nodes.get(path);
    return node === undefined ? "missing" : node === null ? "directory" : "file";
  }
  /** Why a name can't be looked up or made in the parent of `path`; null when it can. */
  #parentFault(path: string): FsErrorCode | null {
    for (let at = dirname(path);; at = dirname(at)) {
      const kind = this.#is(at);
      if (kind === "file") return "not_a_directory";
      if (kind === "directory") return at === dirname(path) ? null : "not_found";
    }
  }
  #below(path: string): string[] {
    return [...this.nodes.keys()].filter((p) => p !== path && isWithin(p, path));
  }

  apply(operation: Operation): Outcome {
    const { op, path } = operation;
    const fault = path === "/" ? null : this.#parentFault(path);
    if (op === "removeDirAll") {
      if (fault !== null) return "ok";
      for (const p of [...this.#below(path), path]) if (p !== "/") this.nodes.delete(p);
      return "ok";
    }
    if (op === "createDirAll") {
      const parts = path.split("/").slice(1);
      for (let i = 1; path !== "/" && i <= parts.length; i++) {
        const at = `/${parts.slice(0, i).join("/")}`;
        if (this.#is(at) === "file") return i === parts.length ? "already_exists" : "not_a_directory";
        this.nodes.set(at, null);
      }
      return "ok";
    }
    if (fault !== null) return fault;
    const kind = this.#is(path);
    const text = this.nodes.get(path) ?? "";
    switch (operation.op) {
      case "read":
        return kind === "missing" ? "not_found" : kind === "directory" ? "is_a_directory" : { text };
      case "list":
        if (kind !== "directory") return kind === "missing" ? "not_found" : "not_a_directory";
        return {
          names: this.#below(path).filter((p) => dirname(p) === path).map((p) => p.slice(p.lastIndexOf("/") + 1))
            .sort(),
        };
      case "write":
      case "append":
        if (kind === "directory") return "is_a_directory";
        this.nodes.set(path, operation.op === "write" ? operation.text : text + operation.text);
        return "ok";
      case "truncate":
        if (kind !== "file") return kind === "missing" ? "not_found" : "is_a_directory";
        this.nodes.set(path, text.slice(0, operation.size).padEnd(operation.size, "\0"));
        return "ok";
      case "createDir":
        if (kind !== "missing") return "already_exists";
        this.nodes.set(path, null);
        return "ok";
      case "removeFile":
        if (kind !== "file") return kind === "missing" ? "not_found" : "is_a_directory";
        this.nodes.delete(path);
        return "ok";
      case "removeDir":
        if (path === "/") return "invalid_input";
        if (kind !== "directory") return kind === "missing" ? "not_found" : "not_a_directory";
        if (this.#below(path).length > 0) return "directory_not_empty";
        this.nodes.delete(path);
        return "ok";
      case "copy":
        return this.#copy(path, operation.to);
      case "rename":
        return this.#rename(path, operation.to);
    }
    throw new Error(`unknown operation ${op}`);
  }

  #copy(from: string, to: string): Outcome {
    const kind = this.#is(from);
    if (kind !== "file") return kind === "missing" ? "not_found" : "is_a_directory";
    if (to === "/") return "is_a_directory";
    const fault = this.#parentFault(to);
    if (fault !== null) return fault;
    if (this.#is(to) === "directory") return "is_a_directory";
    this.nodes.set(to, this.nodes.get(from) ?? "");
    return "ok";
  }

  #rename(from: string, to: string): Outcome {
    if (from === "/") return "invalid_input";
    const kind = this.#is(from);
    if (kind === "missing") return "not_found";
    if (to === "/") return "invalid_input";
    if (from === to) return "ok";
    if (kind === "directory" && isWithin(to, from)) return "invalid_input";
    const fault = this.#parentFault(to);
    if (fault !== null) return fault;
    const target = this.#is(to);
    if (target === "directory") {
      if (kind === "file") return "is_a_directory";
      if (this.#below(to).length > 0) return "directory_not_empty";
    } else if (target === "file" && kind === "directory") return "not_a_directory";
    for (const p of [from, ...this.#below(from)]) {
      this.nodes.set(to + p.slice(from.length), this.nodes.get(p) ?? null);
      this.nodes.delete(p);
    }
    return "ok";
  }
}
