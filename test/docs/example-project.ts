import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { doorsOf, exportedNames, type PublicSymbol } from './public-symbols.ts';

/** One example of a docstring, as a module of its own that exports `example`. */
export interface Example {
  /** Of what: `sdk/Namespace.put`; of a second one `sdk/Namespace.put-2`. */
  readonly name: string;
  readonly place: string;
  readonly file: string;
  /** The names it uses that stand for what the reader has: a client, a lease. */
  readonly givens: readonly string[];
  /** What it prints, as the comments behind `console.log` say. */
  readonly promises: readonly RegExp[];
}

/** Where examples are written, and what they are told. */
export interface ProjectOptions {
  /** Below the checkout, so that the packages are found as in a program of its own. */
  readonly dir: string;
  readonly givenNames: ReadonlySet<string>;
  /** Of a server, in the place of the one of the text. */
  readonly address: string;
}

/** Where names come from that an example does not import; the first that has one. */
const doors = ['sdk', 'recipes', 'testing', 'server'].flatMap(doorsOf);

/** Writes all examples, and the project that compiles them. */
export function writeProject(
  symbols: readonly Pick<PublicSymbol, 'name' | 'place' | 'examples'>[],
  { dir, givenNames, address }: ProjectOptions,
): readonly Example[] {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  const exported = new Map(doors.flatMap((door) => exportedNames(door).map((name) => [name, door.specifier] as const)).reverse());
  // The example of an interface is that of its class, too.
  const written = new Set<string>();
  const examples = symbols.flatMap(({ name, place, examples: codes }) =>
    codes.flatMap((code, at) => {
      if (written.has(code)) return [];
      written.add(code);
      const title = at === 0 ? name : `${name}-${at + 1}`;
      // Some names differ in their case only.
      const file = join(dir, `${written.size}-${title.replaceAll('/', '.')}.ts`);
      const { imports, body, free } = partsOf(code);
      const givens = free.filter((one) => givenNames.has(one));
      const imported = free
        .filter((one) => exported.has(one) && !givenNames.has(one))
        .map((one) => `import { ${one} } from '${exported.get(one)}';`);
      const parameter = givens.length === 0 ? '' : `{ ${givens.join(', ')} }: Given`;
      const lines = [
        "import type { Given } from '../../test/docs/given.ts';",
        ...imported,
        ...imports,
        `/** ${name}, ${place} */`,
        `export async function example(${parameter}) {`,
        body.replaceAll('127.0.0.1:2379', address).replaceAll("'backup.", `'${dir}/backup.`),
        '}',
      ];
      writeFileSync(file, `${lines.join('\n')}\n`);
      return [{ name: title, place, file, givens, promises: promisesOf(code) }];
    }),
  );
  const config = {
    extends: '../../tsconfig.base.json',
    compilerOptions: {
      noEmit: true,
      composite: false,
      incremental: false,
      declaration: false,
      declarationMap: false,
      isolatedDeclarations: false,
      rewriteRelativeImportExtensions: false,
      allowImportingTsExtensions: true,
      verbatimModuleSyntax: false,
      noImplicitReturns: false,
    },
    // Some of what the packages import has its types declared beside them.
    include: ['*.ts', '../../packages/server/src/**/*.d.ts'],
  };
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify(config, undefined, 2));
  return examples;
}

/** What the compiler says against the examples there, with the places where they stand. Empty: nothing. */
export function compilerErrors(dir: string, examples: readonly Example[]): string {
  const tsc = join('node_modules', '@typescript', 'native', 'bin', 'tsc');
  const { stdout, stderr } = spawnSync(process.execPath, [tsc, '-p', dir], { encoding: 'utf8' });
  const places = new Map(examples.map(({ file, place }) => [file, place]));
  return `${stdout.replaceAll(/^\.cache[^(]+/gm, (file) => `${places.get(file) ?? ''} ${file}`)}${stderr}`;
}

/** A comment says what is printed, maybe with a colon and more behind it; `…` stands for anything. */
function promisesOf(code: string): readonly RegExp[] {
  return [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, comment = '']) => {
    const parts = comment.split(': ')[0]?.split('…') ?? [];
    const said = comment.startsWith('{') ? comment.split('…') : parts;
    return new RegExp(`^${said.map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*')}$`);
  });
}

/** An example's imports, the rest of it, and the names it uses and does not declare. */
function partsOf(code: string): { readonly imports: readonly string[]; readonly body: string; readonly free: readonly string[] } {
  const file = ts.createSourceFile('example.ts', code, ts.ScriptTarget.ES2023, true);
  const imports = file.statements.filter(ts.isImportDeclaration).map((statement) => statement.getText());
  const body = imports.reduce((rest, text) => rest.replace(text, ''), code);
  const declared = new Set<string>();
  const used = new Set<string>();
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) (isDeclaration(node) ? declared : isName(node) ? undefined : used)?.add(node.text);
    ts.forEachChild(node, visit);
  };
  visit(file);
  return { imports, body, free: [...used].filter((name) => !declared.has(name)) };
}

function isDeclaration(node: ts.Identifier): boolean {
  const { parent } = node;
  return (
    (ts.isVariableDeclaration(parent) ||
      ts.isBindingElement(parent) ||
      ts.isParameter(parent) ||
      ts.isFunctionDeclaration(parent) ||
      ts.isClassDeclaration(parent) ||
      ts.isImportSpecifier(parent)) &&
    parent.name === node
  );
}

/** Whether it names a property and not something of its own. */
function isName(node: ts.Identifier): boolean {
  const { parent } = node;
  if (ts.isPropertyAccessExpression(parent)) return parent.name === node;
  if (ts.isBindingElement(parent)) return parent.propertyName === node;
  return (
    (ts.isPropertyAssignment(parent) ||
      ts.isMethodDeclaration(parent) ||
      ts.isPropertySignature(parent) ||
      ts.isPropertyDeclaration(parent)) &&
    parent.name === node
  );
}
