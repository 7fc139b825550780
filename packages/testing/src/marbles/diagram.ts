import { AssertionError } from 'node:assert';
import { inspect, isDeepStrictEqual } from 'node:util';
import { TestScheduler } from 'rxjs/testing';
import type { Emission } from './emission.ts';

/** What the characters of a diagram stand for. */
export interface MarbleOptions {
  /** What the letters stand for, compared in depth. Default: each for itself, as text. */
  readonly values?: Readonly<Record<string, unknown>> | undefined;
  /** What the error of `#` has: its properties that are given here must be equal, such as `{ code: 'compacted' }`. Default: any error will do. */
  readonly error?: Readonly<Record<string, unknown>> | undefined;
}

/** How much virtual time a character of a diagram stands for, in milliseconds. */
export const frameMs = 10;

/** What a diagram says: the moment of each notification, in milliseconds from its beginning. */
export interface Mark {
  readonly atMs: number;
  readonly kind: Emission<unknown>['kind'];
  /** Its character. */
  readonly letter: string;
}

/** Reads a diagram, as rxjs does. */
export function readMarbles(marbles: string): readonly Mark[] {
  // Its frames depend on a setting that whoever uses rxjs may have changed.
  const { frameTimeFactor } = TestScheduler;
  const kinds = { N: 'next', E: 'error', C: 'complete' } as const;
  return TestScheduler.parseMarbles(marbles, undefined, undefined, false, true).map(({ frame, notification }) => ({
    atMs: (frame / frameTimeFactor) * frameMs,
    kind: kinds[notification.kind],
    letter: notification.kind === 'N' ? String(notification.value) : notification.kind === 'E' ? '#' : '|',
  }));
}

/** How much time a diagram takes, dashes at its end included. */
export function lengthOf(marbles: string): number {
  // A mark behind its end stands where it ends.
  return readMarbles(`${marbles}z`).at(-1)?.atMs ?? 0;
}

/** Until when a diagram says what comes: that nothing does for a while at its end, too. */
export function toldUntil(marbles: string): number {
  const endsSilent = /(-|(^|\s)[\d.]+(ms|s|m))\s*$/.test(marbles);
  return endsSilent ? lengthOf(marbles) : (readMarbles(marbles).at(-1)?.atMs ?? 0);
}

/** @throws AssertionError when what was emitted is not what the diagram says */
export function assertMarbles(emissions: readonly Emission<unknown>[], marbles: string, options: MarbleOptions): void {
  const marks = readMarbles(marbles);
  const { values } = options;
  if (values !== undefined) {
    const unknown = marks.find(({ kind, letter }) => kind === 'next' && !Object.hasOwn(values, letter));
    if (unknown !== undefined) throw new TypeError(`the diagram has a letter that values does not: ${unknown.letter}`);
  }
  const isSame = marks.length === emissions.length && marks.every((mark, at) => fits(mark, emissions[at] as Emission<unknown>, options));
  if (isSame) return;
  const expected = marks.map((mark) => showMark(mark, options));
  const actual = emissions.map(showEmission);
  const rows = Array.from({ length: Math.max(expected.length, actual.length) }, (_, at) => {
    const mark = marks[at];
    const emission = emissions[at];
    const isFitting = mark !== undefined && emission !== undefined && fits(mark, emission, options);
    return isFitting ? `    ${actual[at]}` : `  ✗ ${actual[at] ?? 'nothing'}\n    expected: ${expected[at] ?? 'nothing'}`;
  });
  const drawn = draw(emissions, marks, options);
  throw new AssertionError({
    message: [
      'the Observable did not do what the diagram says',
      `  expected: ${marbles.trim()}`,
      `  actual:   ${drawn ?? 'cannot be drawn: see below'}`,
      ...rows,
    ].join('\n'),
    expected,
    actual,
    operator: 'expectMarbles',
  });
}

/** The moment of an emission in a diagram: the beginning of the character it falls into. */
function frameOf({ atMs }: Emission<unknown>): number {
  return Math.floor(atMs / frameMs) * frameMs;
}

function fits(mark: Mark, emission: Emission<unknown>, options: MarbleOptions): boolean {
  if (mark.kind !== emission.kind || mark.atMs !== frameOf(emission)) return false;
  if (emission.kind === 'next') return isDeepStrictEqual(emission.value, meantBy(mark.letter, options));
  return emission.kind === 'complete' || isSuchError(emission.error, options.error);
}

function meantBy(letter: string, { values }: MarbleOptions): unknown {
  return values === undefined ? letter : values[letter];
}

function isSuchError(error: unknown, expected: MarbleOptions['error'] = {}): boolean {
  if (typeof error !== 'object' || error === null) return Object.keys(expected).length === 0;
  return Object.entries(expected).every(([name, value]) => isDeepStrictEqual((error as Record<string, unknown>)[name], value));
}

/** The emissions as a diagram, in the letters of the expected one where they fit; undefined: it has no way to say when they came. */
function draw(emissions: readonly Emission<unknown>[], marks: readonly Mark[], options: MarbleOptions): string | undefined {
  const letters = new Set([...Object.keys(options.values ?? {}), ...marks.map(({ letter }) => letter)]);
  const letterOf = (emission: Emission<unknown>): string => {
    if (emission.kind !== 'next') return emission.kind === 'error' ? '#' : '|';
    return [...letters].find((letter) => isDeepStrictEqual(meantBy(letter, options), emission.value)) ?? '?';
  };
  let drawn = '';
  let at = 0;
  for (let first = 0; first < emissions.length; ) {
    const frame = frameOf(emissions[first] as Emission<unknown>) / frameMs;
    let next = first;
    while (next < emissions.length && frameOf(emissions[next] as Emission<unknown>) / frameMs === frame) next += 1;
    const group = emissions.slice(first, next).map(letterOf).join('');
    if (frame < at) return undefined;
    drawn += gap(frame - at) + (next - first > 1 ? `(${group})` : group);
    at = frame + (next - first > 1 ? next - first + 2 : 1);
    first = next;
  }
  return drawn === '' ? '(nothing)' : drawn.trim();
}

function gap(frames: number): string {
  return frames > 30 ? ` ${frames * frameMs}ms ` : '-'.repeat(frames);
}

function showMark({ kind, atMs, letter }: Mark, options: MarbleOptions): string {
  if (kind === 'next') return `${atMs} ms: ${show(meantBy(letter, options))}`;
  return kind === 'complete' ? `${atMs} ms: completes` : `${atMs} ms: fails with ${show(options.error ?? 'any error')}`;
}

function showEmission(emission: Emission<unknown>): string {
  const { kind, atMs } = emission;
  if (kind === 'next') return `${atMs} ms: ${show(emission.value)}`;
  return kind === 'complete' ? `${atMs} ms: completes` : `${atMs} ms: fails with ${showError(emission.error)}`;
}

function showError(error: unknown): string {
  if (!(error instanceof Error)) return show(error);
  return `${error.name}: ${error.message}${'code' in error ? ` (code ${String(error.code)})` : ''}`;
}

function show(value: unknown): string {
  return inspect(value, { depth: 3, breakLength: Number.POSITIVE_INFINITY });
}
