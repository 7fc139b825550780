const corrupt = 4;
const diskFull = 5;
const anythingElse = 1;

const codes: Readonly<Record<string, number>> = {
  'wal-corrupt': corrupt,
  'snapshot-corrupt': corrupt,
  'state-corrupt': corrupt,
  ENOSPC: diskFull,
  EDQUOT: diskFull,
};

/** What a process that ends of `error` says to whoever started it: 4 for damaged data, 5 for a full disk, 1 for the rest. Causes count. */
export function exitCodeOf(error: unknown): number {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    const code = 'code' in cause ? codes[String(cause.code)] : undefined;
    if (code !== undefined) return code;
  }
  return anythingElse;
}
