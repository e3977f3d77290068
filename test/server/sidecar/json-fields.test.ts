import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fieldsOf, withFields } from '../../../server/sidecar/json-fields.ts';

const object = fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 6 });
/** Written with spaces where JSON may have them. */
const texts = fc.tuple(object, fc.constantFrom(undefined, 1, '\t')).map(([value, indent]) => {
  return {
    value: JSON.parse(JSON.stringify(value)),
    bytes: Buffer.from(JSON.stringify(value, null, indent)),
  };
});

describe('fields of an object', () => {
  it('are found where a parser finds them, whatever is in them', () => {
    fc.assert(
      fc.property(texts, ({ value, bytes }) => {
        const found = fieldsOf(bytes).map(({ name, valueBegin, end }) => {
          return [name, JSON.parse(bytes.toString('utf8', valueBegin, end))];
        });
        expect(found).toEqual(Object.entries(value));
      }),
    );
  });

  it('are dropped and added, and no other is changed', () => {
    fc.assert(
      fc.property(texts, fc.string(), fc.jsonValue(), ({ value, bytes }, name, added) => {
        const [first = ''] = Object.keys(value);
        const { [first]: _dropped, ...kept } = value;
        const wanted = { ...kept, [name]: JSON.parse(JSON.stringify(added)) };
        if (name === '__proto__') return;
        expect(JSON.parse(withFields(bytes, [first], { [name]: added }).toString())).toEqual(wanted);
      }),
    );
  });

  it('keep the digits of numbers, and names that are written otherwise', () => {
    const bytes = Buffer.from('{"seed":18446744073709551615,"mod\\u0065l":"a","x":1.0}');
    expect(withFields(bytes, [], { model: 'b' }).toString()).toBe(
      '{"seed":18446744073709551615,"x":1.0,"model":"b"}',
    );
  });
});
