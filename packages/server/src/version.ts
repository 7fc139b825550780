/** The release of these packages. What clients are told is the etcd API level instead: `etcdApiVersion` of `@conclave/protocol`. */
export const conclaveVersion = '0.1.0';
