/**
 * Where our server answers otherwise than etcd, and why. A case named here must fail on our targets: an entry that passes is out of date and
 * fails the suite.
 */
export const differences: ReadonlyMap<string, string> = new Map();
