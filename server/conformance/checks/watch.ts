import { isDeepStrictEqual } from 'node:util';
import type { AdapterState, PodState } from '../../contract/adapter-api.ts';
import { type Bench, PREFIX, path } from '../bench.ts';
import { type Check, must, should } from '../check.ts';
import { EventStream, follow, readChanges, readState } from '../event-stream.ts';
import { requireSame, requireThat, Unmet } from '../expectations.ts';

const CHANGES = { 'x-lora-watch': 'changes' };
/** An operator takes a watch that says nothing for so long to be dead. */
const ALIVE_MS = 25_000;

export const WATCH: Check[] = [
  must(
    'watch',
    'A watch is text/event-stream, and its first event is the whole state, at once.',
    async (bench) => {
      const name = bench.name();
      await bench.putNew(name);
      await watching(bench, {}, async (watch) => {
        const type = watch.stream.contentType;
        requireThat(type.startsWith('text/event-stream'), 'text/event-stream as content-type', type);
        const state = readState(await watch.stream.next('the first event', bench.patienceMs));
        requireSame('adapters of the suite', ours(state), ours(await bench.state()));
        requireSame('bootId', state.bootId, bench.before.bootId);
      });
    },
  ),

  must('watch-whole', 'Who does not ask for changes is sent whole states alone.', async (bench) => {
    const name = bench.name();
    await watching(bench, {}, async (watch) => {
      readState(await watch.stream.next('the first event', bench.patienceMs));
      const digest = await bench.putNew(name);
      for (;;) {
        const event = await watch.stream.next('a whole state after a change', bench.patienceMs);
        const { adapters } = readState(event);
        if (adapters.some(({ current }) => current === digest)) break;
      }
    });
  }),

  must(
    'watch-changes',
    'Who asks for changes is sent them: the first state and all changes after it make the state.',
    async (bench) => {
      const [one, two] = [bench.name(), bench.name()];
      await bench.putNew(two);
      await watching(bench, CHANGES, async (watch) => {
        await watch.catchUp('when it begins');
        const staged = await bench.stageNew(one, { 'x-lora-step': '1' });
        await watch.catchUp('after a staging');
        await bench.activate(one, { revision: staged });
        await watch.catchUp('after an activation');
        await bench.putNew(two);
        await watch.catchUp('after a PUT');
        await bench.rollback(two);
        await watch.catchUp('after a rollback');
        await bench.admin.call('DELETE', path.adapter(one));
        await watch.catchUp('after a removal');
      });
    },
  ),

  should('watch-small', 'Changes hold what changed, not all adapters.', async (bench) => {
    const [one, two] = [bench.name(), bench.name()];
    await bench.putNew(one);
    await watching(bench, CHANGES, async ({ stream }) => {
      let known = readState(await stream.next('the first event', bench.patienceMs));
      const digest = await bench.putNew(two);
      while (!known.adapters.some(({ current }) => current === digest)) {
        const event = await stream.next('changes after a change', bench.patienceMs);
        // Of another adapter the tier may have changed.
        const idle = readChanges(event).adapters.filter((adapter) => {
          return known.adapters.some((before) => isDeepStrictEqual(before, adapter));
        });
        requireSame('adapters in changes that are as they were', idle, []);
        known = follow(known, event);
      }
    });
  }),

  must('watch-id', 'Each event of a watch of changes has an id.', async (bench) => {
    const name = bench.name();
    await watching(bench, CHANGES, async (watch) => {
      const first = await watch.stream.next('the first event', bench.patienceMs);
      await bench.putNew(name);
      const second = await watch.stream.next('an event after a change', bench.patienceMs);
      for (const { id } of [first, second]) requireThat(id !== null && id !== '', 'an id', id);
      requireThat(first.id !== second.id, `another id than ${first.id}`, second.id);
    });
  }),

  must(
    'watch-resume',
    'A watch with Last-Event-ID goes on with all that changed since, or with the whole state.',
    async (bench) => {
      const [one, two] = [bench.name(), bench.name()];
      await bench.putNew(one);
      const before = await watching(bench, CHANGES, async (watch) => {
        await watch.catchUp('when it begins');
        return watch;
      });
      await bench.admin.call('DELETE', path.adapter(one));
      await bench.putNew(two);
      await watching(bench, { ...CHANGES, 'last-event-id': before.lastId ?? '' }, async (watch) => {
        watch.known = before.known;
        await watch.catchUp('after it was away');
      });
    },
  ),

  must(
    'watch-foreign-id',
    'A watch with the id of another process, or none, begins with the whole state.',
    async (bench) => {
      for (const id of ['00000000-0000-0000-0000-000000000000.7', 'nonsense']) {
        await watching(bench, { ...CHANGES, 'last-event-id': id }, async (watch) => {
          readState(await watch.stream.next('the first event', bench.patienceMs));
        });
      }
    },
  ),

  must(
    'watch-alive',
    `A watch on which nothing changes says within ${ALIVE_MS / 1000} s that it is alive.`,
    async (bench) => {
      await watching(bench, CHANGES, async ({ stream }) => {
        const endMs = performance.now() + ALIVE_MS;
        await stream.next('the first event', bench.patienceMs);
        while (stream.comments === 0) {
          const leftMs = endMs - performance.now();
          if (leftMs <= 0) throw new Unmet(`a comment or an event within ${ALIVE_MS} ms`, 'silence');
          if ((await stream.nextWithin(Math.min(leftMs, 500))) !== null) break;
        }
      });
    },
  ),
];

/** A watch, and what its events have told so far. */
class Watcher {
  readonly stream: EventStream;
  readonly #bench: Bench;
  known: PodState | null = null;
  lastId: string | null = null;

  constructor(stream: EventStream, bench: Bench) {
    this.stream = stream;
    this.#bench = bench;
  }

  /** Follows the events until they tell of the suite's adapters what the state does. */
  async catchUp(when: string): Promise<void> {
    const { patienceMs } = this.#bench;
    const wanted = ours(await this.#bench.state());
    const endMs = performance.now() + patienceMs;
    while (this.known === null || !isDeepStrictEqual(ours(this.known), wanted)) {
      const event = await this.stream.nextWithin(Math.max(0, endMs - performance.now()));
      if (event === null) {
        const told = this.known === null ? 'no event' : ours(this.known);
        throw new Unmet(
          `${when}, events within ${patienceMs} ms that tell of ${JSON.stringify(wanted)}`,
          JSON.stringify(told),
        );
      }
      this.known = follow(this.known, event);
      this.lastId = event.id ?? this.lastId;
    }
  }
}

async function watching<T>(
  bench: Bench,
  headers: Record<string, string>,
  look: (watch: Watcher) => Promise<T>,
): Promise<T> {
  const stream = await EventStream.open(bench.admin, path.watch, { headers });
  try {
    return await look(new Watcher(stream, bench));
  } finally {
    stream.close();
  }
}

type Seen = Pick<AdapterState, 'name' | 'current' | 'fence'> & { revisions: (string | number | null)[][] };

/** What nobody but the suite changes. */
function ours({ adapters }: PodState): Seen[] {
  return adapters
    .filter(({ name }) => name.startsWith(PREFIX))
    .map(({ name, current, fence, revisions }) => ({
      name,
      current,
      fence,
      revisions: revisions.map(({ digest, step, state }) => [digest, step, state]).sort(),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}
