import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { canonicalJson, revisionDigest } from '../../../server/contract/digest.ts';
import { parseStrictJson } from '../../../server/contract/strict-json.ts';

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

describe('revision digest', () => {
  it('does not depend on how the config is written', () => {
    const written = ['{"r": 8, "a": [1, {"y": 2.0, "x": null}]}', '{"a":[1,{"x":null,"y":2}],"r":8}'];
    const digests = written.map((text) =>
      revisionDigest(parseStrictJson(Buffer.from(text), { depth: 8 }), sha256('tensors')),
    );
    expect(digests[0]).toBe(digests[1]);
    expect(canonicalJson(JSON.parse(written[0] ?? ''))).toBe(written[1]);
  });

  it('is the sum that the design names, so that any client can compute it', () => {
    const config = '{"r":8}';
    const expected = sha256(`lora-v1\n${sha256(config)}\n${sha256('tensors')}\n`);
    expect(revisionDigest({ r: 8 }, sha256('tensors'))).toBe(`sha256:${expected}`);
  });

  it('changes with either part', () => {
    const digest = revisionDigest({ r: 8 }, sha256('a'));
    expect(revisionDigest({ r: 4 }, sha256('a'))).not.toBe(digest);
    expect(revisionDigest({ r: 8 }, sha256('b'))).not.toBe(digest);
  });
});
