/** ModelTree: what a POSIX tree does, in a few maps; the real one is compared with it. */
import { ROOT_INO } from "../ops.ts";

interface Node {
  readonly folder: boolean;
  nlink: number;
  readonly entries: Map<string, number>;
  content: string;
}

/** Operations name nodes by inode number, which the real tree has allotted. */
export class ModelTree {
  readonly nodes = new Map<number, Node>([[ROOT_INO, { folder: true, nlink: 2, entries: new Map(), content: "" }]]);

  #folder(ino: number): Node {
    const node = this.nodes.get(ino);
    if (node === undefined) throw new Error("not_found");
    if (!node.folder) throw new Error("not_a_directory");
    return node;
  }
  #entry(dir: Node, name: string): [number, Node] {
    const ino = dir.entries.get(name);
    const node = ino === undefined ? undefined : this.nodes.get(ino);
    if (ino === undefined || node === undefined) throw new Error("not_found");
    return [ino, node];
  }

  create(parent: number, name: string, folder: boolean, ino: number): void {
    const dir = this.#folder(parent);
    if (dir.entries.has(name)) throw new Error("already_exists");
    dir.entries.set(name, ino);
    this.nodes.set(ino, { folder, nlink: folder ? 2 : 1, entries: new Map(), content: "" });
    if (folder) dir.nlink++;
  }
  link(ino: number, parent: number, name: string): void {
    const dir = this.#folder(parent);
    const node = this.nodes.get(ino);
    if (node === undefined) throw new Error("not_found");
    if (node.folder) throw new Error("permission_denied");
    if (dir.entries.has(name)) throw new Error("already_exists");
    dir.entries.set(name, ino);
    node.nlink++;
  }
  #unname(ino: number, node: Node): void {
    if (node.folder || --node.nlink === 0) this.nodes.delete(ino);
  }
  unlink(parent: number, name: string): void {
    const dir = this.#folder(parent);
    const [ino, node] = this.#entry(dir, name);
    if (node.folder) throw new Error("is_a_directory");
    dir.entries.delete(name);
    this.#unname(ino, node);
  }
  rmdir(parent: number, name: string): void {
    const dir = this.#folder(parent);
    const [ino, node] = this.#entry(dir, name);
    if (!node.folder) throw new Error("not_a_directory");
    if (node.entries.size > 0) throw new Error("directory_not_empty");
    dir.entries.delete(name);
    dir.nlink--;
    this.#unname(ino, node);
  }
  #holds(ino: number, below: number): boolean {
    if (ino === below) return true;
    const node = this.nodes.get(ino);
    return node !== undefined && [...node.entries.values()].some((child) => this.#holds(child, below));
  }
  rename(
    parent: number,
    name: string,
    newParent: number,
    newName: string,
    noReplace: boolean,
    exchange: boolean,
  ): void {
    const from = this.#folder(parent);
    const to = this.#folder(newParent);
    const [ino, node] = this.#entry(from, name);
    const thereIno = to.entries.get(newName);
    const there = thereIno === undefined ? undefined : this.nodes.get(thereIno);
    if (there !== undefined && noReplace) throw new Error("already_exists");
    if (node.folder && this.#holds(ino, newParent)) throw new Error("invalid_input");
    if (exchange) {
      if (there === undefined || thereIno === undefined) throw new Error("not_found");
      if (there.folder && this.#holds(thereIno, parent)) throw new Error("invalid_input");
      from.entries.set(name, thereIno);
      to.entries.set(newName, ino);
      from.nlink += (there.folder ? 1 : 0) - (node.folder ? 1 : 0);
      to.nlink += (node.folder ? 1 : 0) - (there.folder ? 1 : 0);
      return;
    }
    if (thereIno === ino) return;
    if (there !== undefined && thereIno !== undefined) {
      if (there.folder && !node.folder) throw new Error("is_a_directory");
      if (!there.folder && node.folder) throw new Error("not_a_directory");
      if (there.folder && there.entries.size > 0) throw new Error("directory_not_empty");
      if (there.folder) to.nlink--;
      this.#unname(thereIno, there);
    }
    from.entries.delete(name);
    to.entries.set(newName, ino);
    if (node.folder) {
      from.nlink--;
      to.nlink++;
    }
  }
}
