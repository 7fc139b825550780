/** Whoever waits for one signal. Node warns of a leak from the eleventh listener of a signal on; many calls may well share one. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls back once when the signal is aborted, unless the returned function was called before. The signal must not be aborted yet. */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  const listeners = waiting.get(signal) ?? listen(signal);
  listeners.add(listener);
  return () => {
    listeners.delete(listener);
  };
}

function listen(signal: AbortSignal): Set<() => void> {
  const listeners = new Set<() => void>();
  waiting.set(signal, listeners);
  const tell = (): void => {
    for (const listener of listeners) listener();
    listeners.clear();
  };
  // It stays for as long as the signal, and keeps nothing alive but an empty set.
  signal.addEventListener('abort', tell, { once: true });
  return listeners;
}
