import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';

/** Something public that wants to be shown: a function, a class, or a method of a class or interface. */
export interface PublicSymbol {
  /** `sdk/Namespace.put`. */
  readonly name: string;
  /** Where it is declared: `packages/sdk/src/namespace.ts:57`. */
  readonly place: string;
  /** The code of its own examples. */
  readonly examples: readonly string[];
  /** Whether it is shown: by an example of its own, or by one of its class or interface. */
  readonly isShown: boolean;
}

/** A way into a package: `@conclave/sdk`, or one of its subpaths. */
export interface Door {
  /** As it is imported. */
  readonly specifier: string;
  readonly file: string;
}

/** What the simulation is made of is for those who read its source. */
const unseen: ReadonlySet<string> = new Set(['@conclave/testing/simulation']);

/** All doors of a package, as its `package.json` has them. */
export function doorsOf(folder: string): readonly Door[] {
  const manifest = JSON.parse(readFileSync(join('packages', folder, 'package.json'), 'utf8')) as {
    readonly name: string;
    readonly exports: Readonly<Record<string, string | { readonly '@conclave/source': string }>>;
  };
  const all = Object.entries(manifest.exports).flatMap(([path, target]) =>
    typeof target === 'string'
      ? []
      : [{ specifier: join(manifest.name, path), file: join('packages', folder, target['@conclave/source']) }],
  );
  return all.filter(({ specifier }) => !unseen.has(specifier));
}

/** What users implement or hand over, and never call: there is nothing to show. */
const implementedByUsers: ReadonlySet<string> = new Set(['FeedSink', 'FeedSource', 'HeldLease', 'MessageType']);

/** What an example can use without saying where it comes from: all that a door gives. */
export function exportedNames(door: Door): readonly string[] {
  return exportsOf(door).map(({ name }) => name);
}

/** Every function and class behind a door, and every method of its classes and interfaces. */
export function publicSymbols(door: Door): readonly PublicSymbol[] {
  const of = door.specifier.replace('@conclave/', '');
  return exportsOf(door).flatMap(({ name, declarations }) =>
    implementedByUsers.has(name) ? [] : symbolsOf(`${of}/${name}`, declarations),
  );
}

interface Exported {
  readonly name: string;
  readonly declarations: readonly Declared[];
}

function exportsOf({ file: path }: Door): readonly Exported[] {
  const file = sourceOf(path);
  return file.statements.flatMap((statement): readonly Exported[] => {
    if (!ts.isExportDeclaration(statement)) {
      return isExported(statement) ? namesOf(statement).map((name) => ({ name, declarations: declarationsIn(file, name) })) : [];
    }
    if (statement.exportClause === undefined || !ts.isNamedExports(statement.exportClause)) {
      throw new Error(`${path} exports more than it names`);
    }
    const from = neighbour(file, statement);
    return statement.exportClause.elements.map(({ name, propertyName = name }) => {
      // What comes from another package is shown there.
      const declarations = from === undefined ? [] : declarationsIn(sourceOf(from), propertyName.text);
      if (from !== undefined && declarations.length === 0) throw new Error(`${path}: there is no ${propertyName.text} in ${from}`);
      return { name: name.text, declarations };
    });
  });
}

function isExported(statement: ts.Statement): boolean {
  return ts.canHaveModifiers(statement) && ts.getModifiers(statement)?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword) === true;
}

type Declared = ts.FunctionDeclaration | ts.ClassDeclaration | ts.InterfaceDeclaration | ts.VariableStatement | ts.TypeAliasDeclaration;

function symbolsOf(name: string, declarations: readonly Declared[]): readonly PublicSymbol[] {
  const [first] = declarations;
  if (first === undefined) return [];
  const own = declarations.flatMap(examplesOf);
  const isCallable = declarations.some((one) => ts.isFunctionDeclaration(one) || ts.isClassDeclaration(one));
  const methods = declarations.flatMap((one) => (ts.isClassDeclaration(one) || ts.isInterfaceDeclaration(one) ? methodsOf(one) : []));
  const shown = methods.map(({ name: method, nodes }) => {
    const examples = [...new Set(nodes.flatMap(examplesOf))];
    const isShown = examples.length > 0 || own.some((code) => new RegExp(`\\b${method}\\s*(<[^>]*>)?[(:]`).test(code));
    return { name: `${name}.${method}`, place: placeOf(nodes[0]), examples, isShown };
  });
  // A class is shown by its methods, too.
  const isShown = own.length > 0 || !isCallable || (shown.length > 0 && shown.every((method) => method.isShown));
  return [{ name, place: placeOf(first), examples: [...new Set(own)], isShown }, ...shown];
}

interface Method {
  readonly name: string;
  /** Its declarations, here and in what the class is made of, which may carry its documentation. */
  readonly nodes: readonly ts.Node[];
}

function methodsOf(type: ts.ClassDeclaration | ts.InterfaceDeclaration): readonly Method[] {
  const inherited = (type.heritageClauses ?? []).flatMap(({ token, types }) =>
    types.flatMap(({ expression }) => {
      const isBase = token === ts.SyntaxKind.ExtendsKeyword;
      return ts.isIdentifier(expression) ? typesNamed(type.getSourceFile(), expression.text).map((base) => ({ base, isBase })) : [];
    }),
  );
  const methods = new Map<string, ts.Node[]>();
  for (const member of type.members) {
    if (!(ts.isMethodDeclaration(member) || ts.isMethodSignature(member)) || !ts.isIdentifier(member.name) || isHidden(member)) continue;
    methods.set(member.name.text, [...(methods.get(member.name.text) ?? []), member]);
  }
  for (const { base, isBase } of inherited) {
    for (const { name, nodes } of methodsOf(base)) {
      const known = methods.get(name);
      if (known !== undefined) known.push(...nodes);
      else if (isBase) methods.set(name, [...nodes]);
    }
  }
  return [...methods].map(([name, nodes]) => ({ name, nodes }));
}

function isHidden(member: ts.MethodDeclaration | ts.MethodSignature): boolean {
  const hidden = ts.ModifierFlags.Private | ts.ModifierFlags.Protected;
  return (ts.getCombinedModifierFlags(member) & hidden) !== 0 || ts.getJSDocTags(member).some(({ tagName }) => tagName.text === 'internal');
}

/** Classes and interfaces by a name that a file knows. */
function typesNamed(file: ts.SourceFile, name: string): readonly (ts.ClassDeclaration | ts.InterfaceDeclaration)[] {
  const isType = (one: Declared): one is ts.ClassDeclaration | ts.InterfaceDeclaration =>
    ts.isClassDeclaration(one) || ts.isInterfaceDeclaration(one);
  const here = declarationsIn(file, name).filter(isType);
  if (here.length > 0) return here;
  for (const statement of file.statements) {
    if (!ts.isImportDeclaration(statement)) continue;
    const bindings = statement.importClause?.namedBindings;
    const isIt = bindings !== undefined && ts.isNamedImports(bindings) && bindings.elements.some((one) => one.name.text === name);
    const from = isIt ? neighbour(file, statement) : undefined;
    if (from !== undefined) return declarationsIn(sourceOf(from), name).filter(isType);
  }
  return [];
}

function declarationsIn(file: ts.SourceFile, name: string): readonly Declared[] {
  return file.statements.filter((statement): statement is Declared => namesOf(statement).includes(name));
}

function namesOf(statement: ts.Statement): readonly string[] {
  if (ts.isVariableStatement(statement))
    return statement.declarationList.declarations.flatMap(({ name }) => (ts.isIdentifier(name) ? [name.text] : []));
  const isNamed =
    ts.isFunctionDeclaration(statement) ||
    ts.isClassDeclaration(statement) ||
    ts.isInterfaceDeclaration(statement) ||
    ts.isTypeAliasDeclaration(statement);
  return isNamed && statement.name !== undefined ? [statement.name.text] : [];
}

function examplesOf(node: ts.Node): readonly string[] {
  return ts.getJSDocTags(node).flatMap((tag) => {
    if (tag.tagName.text !== 'example') return [];
    const comment = ts.getTextOfJSDocComment(tag.comment) ?? '';
    return [...comment.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1] ?? '');
  });
}

function placeOf(node: ts.Node | undefined): string {
  if (node === undefined) return 'nowhere';
  const file = node.getSourceFile();
  return `${file.fileName}:${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}`;
}

/** The file of this package from which a statement takes its names. */
function neighbour(file: ts.SourceFile, { moduleSpecifier }: ts.ExportDeclaration | ts.ImportDeclaration): string | undefined {
  if (moduleSpecifier === undefined || !ts.isStringLiteral(moduleSpecifier) || !moduleSpecifier.text.startsWith('.')) return undefined;
  const path = join(dirname(file.fileName), moduleSpecifier.text);
  return existsSync(path) ? path : undefined;
}

const sources = new Map<string, ts.SourceFile>();

function sourceOf(path: string): ts.SourceFile {
  const known = sources.get(path) ?? ts.createSourceFile(path, readFileSync(path, 'utf8'), ts.ScriptTarget.ES2023, true);
  sources.set(path, known);
  return known;
}
