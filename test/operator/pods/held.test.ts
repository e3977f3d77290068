import fc from 'fast-check';
import { expect, it } from 'vitest';
import { applyChanges } from '../../../operator/pods/changes.ts';
import { heldIn } from '../../../operator/pods/held.ts';
import { adapterState, digest, podState } from '../../support/pod/state.ts';

const NAMES = ['a', 'b', 'c', 'd'];

it('what a report holds under a name is found in each report, whatever the ones before it held', () => {
  const changes = fc.record({
    set: fc.array(fc.tuple(fc.constantFrom(...NAMES), fc.constantFrom('1', '2')), { maxLength: 3 }),
    removed: fc.uniqueArray(fc.constantFrom(...NAMES), { maxLength: 2 }),
    looks: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(changes, { maxLength: 12 }), (all) => {
      const reports = [podState()];
      for (const { set, removed, looks } of all) {
        const before = reports.at(-1) ?? podState();
        if (looks) heldIn(before, 'a');
        const adapters = [...new Map(set).entries()].map(([name, hex]) => adapterState(name, digest(hex)));
        reports.push(applyChanges(before, { ...podState(), adapters, removed }));
      }
      for (const report of reports) {
        for (const name of NAMES) {
          expect(heldIn(report, name)).toBe(report.adapters.find((adapter) => adapter.name === name));
        }
      }
    }),
  );
});
