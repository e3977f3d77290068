/**
 * Items of several sources as they come, each with its source's index. A source is asked for its next item once its
 * last one was taken. Leaving early leaves the sources too.
 */
export async function* merge<T>(sources: AsyncGenerator<T>[]): AsyncGenerator<{ index: number; item: T }> {
  const arrived: Arrival<T>[] = [];
  let wake = (): void => undefined;
  const arrive = (arrival: Arrival<T>) => {
    arrived.push(arrival);
    wake();
  };
  // Each source's promise has one reaction, its own. To race all of them for every item would leave one on each that waits.
  const pull = (index: number) => {
    const source = sources[index] as AsyncGenerator<T>;
    source.next().then(
      (result) => arrive({ index, result }),
      (error) => arrive({ error }),
    );
  };
  sources.forEach((_, index) => {
    pull(index);
  });
  try {
    for (let running = sources.length; running > 0; ) {
      const next = arrived.shift();
      if (next === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        continue;
      }
      if ('error' in next) throw next.error;
      if (next.result.done) {
        running -= 1;
        continue;
      }
      yield { index: next.index, item: next.result.value };
      pull(next.index);
    }
  } finally {
    for (const source of sources) source.return(undefined).catch(() => undefined);
  }
}

type Arrival<T> = { index: number; result: IteratorResult<T> } | { error: unknown };
