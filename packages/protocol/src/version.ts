/**
 * The etcd release whose client API this is, as a server reports it: clients decide by it which calls they may make.
 *
 * @public
 */
export const etcdApiVersion: string = '3.7.0';

/**
 * The cluster version to report beside it, which in etcd is the lowest minor that all members speak.
 *
 * @public
 */
export const etcdClusterVersion: string = '3.7.0';
