/**
 * The house rules on one source file, on TypeScript's syntax tree: import arrows, no ambient world outside the seam, no
 * default export, no `any`, no non-null `!`, no `using` that the bundler loses, and a first line that says what the file is
 * for.
 */
import ts from "typescript";
import {
  AMBIENT_GLOBALS,
  AMBIENT_MEMBERS,
  FUSE_FFI,
  GLOBAL_OBJECTS,
  IMPURE_NAMES,
  PURE_NODE_MODULES,
  SEAM,
} from "./ambient.ts";
import { FREE, partOf } from "./arrows.ts";

export interface Finding {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly rule:
    | "arrow"
    | "ambient"
    | "default-export"
    | "any"
    | "non-null"
    | "first-line"
    | "cycle"
    | "free-code"
    | "lost-using";
  readonly message: string;
}

/** An import as it stands in the source: its specifier, and whether it only takes types. */
export interface Import {
  readonly specifier: string;
  readonly typeOnly: boolean;
  /** Loaded at first use (`import()`): it can't make two modules wait for each other. */
  readonly dynamic: boolean;
  readonly line: number;
}

export interface Source {
  /** Relative to the repository's top, with `/`. */
  readonly file: string;
  readonly text: string;
}

export function parse(source: Source): ts.SourceFile {
  return ts.createSourceFile(source.file, source.text, ts.ScriptTarget.ESNext, true, ts.ScriptKind.TS);
}

function lineOf(tree: ts.SourceFile, node: ts.Node): number {
  return tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1;
}

/** `./x.ts` seen from `file` as a path from the repository's top; null when it isn't a file of the project. */
export function resolveImport(file: string, specifier: string): string | null {
  if (!specifier.startsWith("./") && !specifier.startsWith("../")) return null;
  return decodeURIComponent(new URL(specifier, `file:///${file}`).pathname.slice(1));
}

export function importsOf(tree: ts.SourceFile): Import[] {
  const found: Import[] = [];
  const visit = (node: ts.Node) => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      if (ts.isStringLiteral(node.moduleSpecifier)) {
        const clause = ts.isImportDeclaration(node) ? node.importClause : node.exportClause;
        const named = ts.isImportDeclaration(node) ? node.importClause?.namedBindings : node.exportClause;
        const whole = ts.isImportDeclaration(node)
          ? node.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword
          : node.isTypeOnly;
        const eachIsType = clause !== undefined && named !== undefined &&
          (ts.isNamedImports(named) || ts.isNamedExports(named)) && named.elements.length > 0 &&
          named.elements.every((element) => element.isTypeOnly) &&
          !(ts.isImportDeclaration(node) && node.importClause?.name !== undefined);
        found.push({
          specifier: node.moduleSpecifier.text,
          typeOnly: whole || eachIsType,
          dynamic: false,
          line: lineOf(tree, node),
        });
      }
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      const [argument] = node.arguments;
      if (argument !== undefined && ts.isStringLiteralLike(argument)) {
        found.push({ specifier: argument.text, typeOnly: false, dynamic: true, line: lineOf(tree, node) });
      }
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      if (ts.isStringLiteral(node.argument.literal)) {
        const specifier = node.argument.literal.text;
        found.push({ specifier, typeOnly: true, dynamic: false, line: lineOf(tree, node) });
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

function checkArrows(file: string, imports: readonly Import[], report: Report): void {
  const part = partOf(file);
  if (FREE.test(file)) return;
  for (const { specifier, line } of imports) {
    const target = resolveImport(file, specifier);
    if (target === null || target === "deno.json") continue;
    if (FREE.test(target)) {
      report("free-code", line, `imports ${target}, which is there for tests and scripts only`);
      continue;
    }
    const other = partOf(target);
    if (part === undefined || other === undefined) {
      report(
        "arrow",
        line,
        `imports ${target}: one of the two belongs to no part of the project (scripts/lint/arrows.ts)`,
      );
    } else if (part !== other && !part.mayImport.includes(other.name)) {
      const allowed = part.mayImport.length === 0 ? "nothing else" : part.mayImport.join(", ");
      report("arrow", line, `${part.name} must not import ${other.name} (${target}); it may import ${allowed}`);
    } else if (part.name === "backends" && other.name === "backends") {
      const own = file.split("/").slice(0, 2).join("/");
      if (file !== "backends/registry.ts" && !target.startsWith(`${own}/`)) {
        report("arrow", line, `a backend imports another one (${target}); share through core/fs`);
      }
    }
  }
}

function checkNodeModules(tree: ts.SourceFile, report: Report): void {
  for (const statement of tree.statements) {
    if (!ts.isImportDeclaration(statement) || !ts.isStringLiteral(statement.moduleSpecifier)) continue;
    if (statement.importClause?.phaseModifier === ts.SyntaxKind.TypeKeyword) continue;
    const module = statement.moduleSpecifier.text;
    if (!module.startsWith("node:")) continue;
    const line = lineOf(tree, statement);
    if (!PURE_NODE_MODULES.has(module)) {
      report("ambient", line, `${module} reaches into the world; take what you need from core/platform`);
      continue;
    }
    const bindings = statement.importClause?.namedBindings;
    const impure = IMPURE_NAMES[module];
    if (impure === undefined) continue;
    if (bindings === undefined || !ts.isNamedImports(bindings)) {
      report("ambient", line, `import the names of ${module} one by one: it also holds sources of randomness`);
      continue;
    }
    for (const element of bindings.elements) {
      const name = (element.propertyName ?? element.name).text;
      if (impure.test(name)) {
        report("ambient", line, `${name} of ${module} draws randomness; use core/platform/random.ts`);
      }
    }
  }
}

/** Names declared anywhere in the file: a parameter called `fetch` is not the global one. */
function declaredNames(tree: ts.SourceFile): ReadonlyMap<string, readonly ts.Node[]> {
  const declared = new Map<string, ts.Node[]>();
  const add = (name: ts.Node | undefined, scope: ts.Node) => {
    if (name === undefined) return;
    if (ts.isIdentifier(name)) declared.set(name.text, [...(declared.get(name.text) ?? []), scope]);
    else if (ts.isObjectBindingPattern(name) || ts.isArrayBindingPattern(name)) {
      for (const element of name.elements) if (ts.isBindingElement(element)) add(element.name, scope);
    }
  };
  const scopeOf = (node: ts.Node): ts.Node => {
    let at = node.parent;
    while (
      !ts.isSourceFile(at) && !ts.isBlock(at) && !ts.isFunctionLike(at) && !ts.isForStatement(at) &&
      !ts.isForOfStatement(at) && !ts.isForInStatement(at) && !ts.isCatchClause(at) && !ts.isModuleBlock(at) &&
      !ts.isCaseBlock(at)
    ) at = at.parent;
    return at;
  };
  const visit = (node: ts.Node) => {
    if (ts.isVariableDeclaration(node) || ts.isParameter(node)) add(node.name, scopeOf(node));
    else if (ts.isFunctionDeclaration(node) || ts.isClassDeclaration(node) || ts.isEnumDeclaration(node)) {
      add(node.name, scopeOf(node));
    } else if (ts.isFunctionExpression(node) || ts.isClassExpression(node)) add(node.name, node);
    else if (ts.isImportClause(node) || ts.isImportSpecifier(node) || ts.isNamespaceImport(node)) add(node.name, tree);
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return declared;
}

function isWithin(node: ts.Node, scope: ts.Node): boolean {
  for (let at: ts.Node | undefined = node; at !== undefined; at = at.parent) if (at === scope) return true;
  return false;
}

/** Is this identifier a use of a value by that name, rather than a property, a label, a type or a declaration? */
function isValueUse(node: ts.Identifier): boolean {
  const parent = node.parent;
  if (ts.isPropertyAccessExpression(parent)) return parent.expression === node;
  if (ts.isQualifiedName(parent) || ts.isTypeReferenceNode(parent)) return false;
  if (ts.isExpressionWithTypeArguments(parent) && ts.isInterfaceDeclaration(parent.parent.parent)) return false;
  if (ts.isTypeQueryNode(parent)) return false;
  if (ts.isPropertyAssignment(parent)) return parent.initializer === node;
  if (ts.isBindingElement(parent)) return parent.initializer === node;
  if (ts.isImportSpecifier(parent) || ts.isImportClause(parent) || ts.isNamespaceImport(parent)) return false;
  if (
    ts.isMethodDeclaration(parent) || ts.isPropertyDeclaration(parent) || ts.isPropertySignature(parent) ||
    ts.isMethodSignature(parent) || ts.isGetAccessor(parent) || ts.isSetAccessor(parent) || ts.isEnumMember(parent)
  ) return "initializer" in parent && parent.initializer === node;
  if (ts.isVariableDeclaration(parent) || ts.isParameter(parent)) return parent.initializer === node;
  return !(ts.isFunctionDeclaration(parent) || ts.isFunctionExpression(parent) || ts.isLabeledStatement(parent));
}

function checkAmbient(file: string, tree: ts.SourceFile, report: Report): void {
  if (SEAM.test(file) || FREE.test(file) || FUSE_FFI.test(file)) return;
  checkNodeModules(tree, report);
  const declared = declaredNames(tree);
  const isGlobal = (node: ts.Identifier) =>
    isValueUse(node) && !(declared.get(node.text) ?? []).some((scope) => isWithin(node, scope));
  const say = (node: ts.Node, what: string) =>
    report("ambient", lineOf(tree, node), `${what} is the ambient world; take what you need from core/platform`);

  const visitMember = (node: ts.PropertyAccessExpression | ts.ElementAccessExpression) => {
    const object = node.expression;
    if (!ts.isIdentifier(object) || !isGlobal(object)) return;
    const name = ts.isPropertyAccessExpression(node)
      ? node.name.text
      : ts.isStringLiteralLike(node.argumentExpression)
      ? node.argumentExpression.text
      : null;
    if (name === null) return;
    if (AMBIENT_MEMBERS[object.text]?.has(name)) say(node, `${object.text}.${name}`);
    else if (GLOBAL_OBJECTS.has(object.text) && AMBIENT_GLOBALS.has(name)) say(node, `${object.text}.${name}`);
  };
  const visit = (node: ts.Node) => {
    if (ts.isPropertyAccessExpression(node) || ts.isElementAccessExpression(node)) visitMember(node);
    if (ts.isNewExpression(node) || ts.isCallExpression(node)) {
      const callee = node.expression;
      const arguments_ = node.arguments ?? [];
      if (ts.isIdentifier(callee) && callee.text === "Date" && isGlobal(callee)) {
        if (ts.isCallExpression(node) || arguments_.length === 0) say(node, "the present date");
      }
    }
    if (ts.isVariableDeclaration(node) && node.initializer !== undefined && ts.isIdentifier(node.initializer)) {
      const members = AMBIENT_MEMBERS[node.initializer.text];
      if (members !== undefined && isGlobal(node.initializer) && ts.isObjectBindingPattern(node.name)) {
        for (const element of node.name.elements) {
          const name = element.propertyName ?? element.name;
          if (ts.isIdentifier(name) && members.has(name.text)) say(node, `${node.initializer.text}.${name.text}`);
        }
      }
    }
    if (ts.isShorthandPropertyAssignment(node) && AMBIENT_GLOBALS.has(node.name.text) && isGlobal(node.name)) {
      say(node, node.name.text);
    } else if (ts.isIdentifier(node) && AMBIENT_GLOBALS.has(node.text) && isGlobal(node)) {
      if (!ts.isShorthandPropertyAssignment(node.parent) && !allowedInFuse(file, node)) {
        const parent = node.parent;
        say(node, ts.isPropertyAccessExpression(parent) ? `${node.text}.${parent.name.text}` : node.text);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
}

/** Pointers and the loader of libc are what FUSE is spoken through; nothing else of Deno is. */
function allowedInFuse(file: string, node: ts.Identifier): boolean {
  const parent = node.parent;
  return file.startsWith("fuse/") && node.text === "Deno" && ts.isPropertyAccessExpression(parent) &&
    /^(Unsafe|dlopen)/.test(parent.name.text);
}

function checkTypes(tree: ts.SourceFile, report: Report): void {
  const visit = (node: ts.Node) => {
    if (node.kind === ts.SyntaxKind.AnyKeyword) {
      report("any", lineOf(tree, node), "`any`: say what it is, or `unknown`");
    }
    if (ts.isNonNullExpression(node)) report("non-null", lineOf(tree, node), "non-null `!`: handle the missing case");
    if (
      (ts.isVariableDeclaration(node) || ts.isPropertyDeclaration(node)) && node.exclamationToken !== undefined
    ) report("non-null", lineOf(tree, node), "`!` on a declaration: give it a value");
    if (ts.isExportAssignment(node) && !node.isExportEquals) {
      report("default-export", lineOf(tree, node), "default export: export it by name");
    }
    if (
      (ts.isFunctionDeclaration(node) || ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node)) &&
      node.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.DefaultKeyword)
    ) report("default-export", lineOf(tree, node), "default export: export it by name");
    if (ts.isExportSpecifier(node) && node.name.text === "default") {
      report("default-export", lineOf(tree, node), "default export: export it by name");
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
}

function checkFirstLine(text: string, report: Report): void {
  const body = text.startsWith("#!") ? text.slice(text.indexOf("\n") + 1) : text;
  const comment = /^(?:\/\*\*?([\s\S]*?)\*\/|\/\/([^\n]*))/.exec(body);
  const words = (comment?.[1] ?? comment?.[2] ?? "").replace(/^[\s*/]+|\s+$/g, "");
  if (words.split(/\s+/).length < 3) report("first-line", 1, "begin the file with a comment that says what it is for");
}

/**
 * `deno bundle --minify` puts the value of a variable that is used once, first of all in the next statement, in the
 * variable's place, and with `using` so too: what was opened is then never closed (docs/decisions/0109).
 */
function checkUsing(tree: ts.SourceFile, report: Report): void {
  const visit = (node: ts.Node) => {
    if (ts.isVariableStatement(node) && (node.declarationList.flags & ts.NodeFlags.Using) === ts.NodeFlags.Using) {
      const name = node.declarationList.declarations.at(-1)?.name.getText(tree) ?? "";
      const rest = node.parent.getChildren(tree).flatMap((child) =>
        child.kind === ts.SyntaxKind.SyntaxList ? child.getChildren(tree) : []
      );
      const after = rest.slice(rest.indexOf(node) + 1);
      const uses = after.flatMap((
        statement,
      ) => [...statement.getText(tree).matchAll(new RegExp(`\\b${name}\\b`, "g"))]);
      const first = new RegExp(`^((const|let) .* = |if |return |await |[(])*${name}\\b`);
      if (uses.length === 1 && first.test(after[0]?.getText(tree) ?? "")) {
        report("lost-using", lineOf(tree, node), `the bundler would lose this: close ${name} in a finally`);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(tree);
}

type Report = (rule: Finding["rule"], line: number, message: string) => void;

/** All rules that need to see one file only. */
export function lintSource(source: Source): Finding[] {
  const findings: Finding[] = [];
  const report: Report = (rule, line, message) => findings.push({ file: source.file, line, rule, message });
  const tree = parse(source);
  checkFirstLine(source.text, report);
  checkTypes(tree, report);
  if (!FREE.test(source.file)) checkUsing(tree, report);
  checkArrows(source.file, importsOf(tree), report);
  checkAmbient(source.file, tree, report);
  return findings.sort((a, b) => a.line - b.line);
}
