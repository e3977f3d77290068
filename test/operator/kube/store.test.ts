import fc from 'fast-check';
import { expect, it } from 'vitest';
import type { KubeObject } from '../../../operator/kube/resource.ts';
import { Store } from '../../../operator/kube/store.ts';

const COLOURS = ['red', 'blue', null] as const;

interface Thing extends KubeObject {
  colour: (typeof COLOURS)[number];
}

const makeStore = () => new Store<Thing, 'colour'>({ colour: ({ colour }) => colour });

let resourceVersion = 0;
function thing(name: string, colour: Thing['colour'], { uid = name, generation = 1 } = {}): Thing {
  resourceVersion += 1;
  const metadata = { name, namespace: 'ns', uid, generation, resourceVersion: `${resourceVersion}` };
  return { apiVersion: 'v1', kind: 'Thing', metadata, colour };
}

it('what an index has under a value is what a walk over all objects finds', () => {
  const change = fc.record({
    act: fc.constantFrom('put', 'remove', 'replace'),
    name: fc.constantFrom('a', 'b', 'c'),
    uid: fc.constantFrom('1', '2'),
    colour: fc.constantFrom(...COLOURS),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
      const store = makeStore();
      for (const { act, name, uid, colour } of changes) {
        const object = thing(name, colour, { uid });
        if (act === 'put') store.put(object);
        else if (act === 'remove') store.remove(object);
        else store.replace([object, thing('d', colour)]);
        for (const value of ['red', 'blue']) {
          const found = store.list().filter((item) => item.colour === value);
          expect(new Set(store.by('colour', value))).toEqual(new Set(found));
        }
      }
    }),
  );
});

it('the version of a value moves with what its objects ask for, and not with their status', () => {
  const store = makeStore();
  const steps: [() => void, isNews: boolean][] = [
    [() => store.put(thing('a', 'red')), true],
    [() => store.put(thing('b', 'blue')), false],
    [() => store.put(thing('a', 'red')), false],
    [() => store.put(thing('a', 'red', { generation: 2 })), true],
    [() => store.put(thing('a', 'red', { generation: 2, uid: 'other' })), true],
    [() => store.put(thing('a', 'blue')), true],
    [() => store.put(thing('a', 'red')), true],
    [() => store.replace([thing('b', 'red')]), true],
    [() => store.remove(thing('b', 'red')), true],
    [() => store.put(thing('c', 'red')), true],
  ];
  const seen = new Set([0]);
  let before = store.versionOf('colour', 'red');
  for (const [step, isNews] of steps) {
    step();
    const version = store.versionOf('colour', 'red');
    expect(version !== before).toBe(isNews);
    // One that was told before is never told again for something else, but where nothing is there.
    if (isNews && version !== 0) expect(seen).not.toContain(version);
    seen.add(version);
    before = version;
  }
});
