import { Counter, type Registry } from 'prom-client';
import type { ReflectorCounts } from '../kube/reflector.ts';

type Add = (labels: Record<string, string>, value: number) => void;

/** Read off the reflectors when somebody scrapes; `reflectors` is by kind. */
export function registerReflectors(
  registry: Registry,
  reflectors: Record<string, { counts: Readonly<ReflectorCounts> }>,
): void {
  const each = (visit: (kind: string, counts: Readonly<ReflectorCounts>) => void) => {
    for (const [kind, { counts }] of Object.entries(reflectors)) visit(kind, counts);
  };
  const relists =
    'Lists after the first: due (it is time), stale (the watch cannot go on), broken (none came)';
  counter(registry, 'relists_total', relists, ['kind', 'cause'], (add) =>
    each((kind, counts) => {
      for (const [cause, lists] of Object.entries(counts.relists)) add({ kind, cause }, lists);
    }),
  );
  counter(registry, 'failures_total', 'Lists and watches that failed', ['kind'], (add) =>
    each((kind, { failures }) => add({ kind }, failures)),
  );
  const misses = 'Changes that a due list found and the watch had not told';
  counter(registry, 'misses_total', misses, ['kind'], (add) =>
    each((kind, counts) => add({ kind }, counts.misses)),
  );
}

function counter(
  registry: Registry,
  name: string,
  help: string,
  labelNames: string[],
  read: (add: Add) => void,
): void {
  new Counter({
    name: `lorikeet_operator_reflector_${name}`,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      read((labels, value) => this.inc(labels, value));
    },
  });
}
