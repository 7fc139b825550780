declare module 'fs-native-extensions' {
  /** Locks the whole file for this open file description; false when another one has it. The lock ends when the file is closed. */
  export function tryLock(fd: number): boolean;
}
