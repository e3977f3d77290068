/** Items of several sources as they come, each with its source's index. Leaving early leaves the sources too. */
export async function* merge<T>(sources: AsyncGenerator<T>[]): AsyncGenerator<{ index: number; item: T }> {
  const pending = new Map<number, Promise<{ index: number; result: IteratorResult<T> }>>();
  const pull = (index: number, source: AsyncGenerator<T>) => {
    const next = source.next().then((result) => ({ index, result }));
    // Whoever races on it sees a rejection; after an early end nobody does.
    next.catch(() => undefined);
    pending.set(index, next);
  };
  sources.forEach((source, index) => {
    pull(index, source);
  });
  try {
    while (pending.size > 0) {
      const { index, result } = await Promise.race(pending.values());
      if (result.done) {
        pending.delete(index);
        continue;
      }
      yield { index, item: result.value };
      pull(index, sources[index] as AsyncGenerator<T>);
    }
  } finally {
    for (const source of sources) source.return(undefined).catch(() => undefined);
  }
}
