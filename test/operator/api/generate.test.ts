import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { structuralSchema } from '../../../operator/api/crd.ts';
import { difference, generatedFiles } from '../../../operator/api/generate.ts';

/** Keys that a structural schema must not have, at any depth. */
const FORBIDDEN = ['$ref', '$schema', '$defs', 'oneOf', 'not', 'const'];

function keysOf(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, item]) => [key, ...keysOf(item)]);
}

describe('the generated CRDs', () => {
  for (const [file, expected] of generatedFiles()) {
    it(`${file.split('/').at(-1)} is what operator/api says: npm run generate`, () => {
      expect(difference(readFileSync(file, 'utf8'), expected)).toEqual([]);
    });
  }
});

describe('difference', () => {
  it('shows the lines that changed, and where', () => {
    expect(difference('a\nb\nc\nd', 'a\nB\nc\nd')).toEqual(['@@ line 2 @@', '-b', '+B']);
    expect(difference('', 'a\nb')).toEqual(['@@ line 1 @@', '-', '+a', '+b']);
    expect(difference('a\na', 'a')).toEqual(['@@ line 2 @@', '-a']);
  });
});

describe('structuralSchema', () => {
  it('has nothing that the API server refuses', () => {
    const Part = z.object({ n: z.number().int().nullable().describe('n') });
    const schema = structuralSchema(z.object({ a: Part.describe('a'), b: Part.describe('b') }), 'spec');
    expect(keysOf(schema).filter((key) => FORBIDDEN.includes(key))).toEqual([]);
    expect(schema).toMatchObject({
      properties: { a: { properties: { n: { type: 'integer', format: 'int64', nullable: true } } } },
    });
  });

  it('is open, so that the API server prunes what it does not know', () => {
    const schema = structuralSchema(z.strictObject({ a: z.boolean().describe('a') }), 'spec');
    expect(keysOf(schema)).not.toContain('additionalProperties');
  });

  const refused: Record<string, [z.ZodType, string]> = {
    'a field without a description': [z.object({ a: z.boolean() }), 'a description for spec.a'],
    'a string without a bound': [z.object({ a: z.string().describe('a') }), 'an upper bound for spec.a'],
    'a list without a bound': [
      z.object({ a: z.array(z.boolean()).describe('a') }),
      'an upper bound for spec.a',
    ],
    'a map without a bound': [
      z.object({ a: z.record(z.string().max(9), z.string().max(9)).describe('a') }),
      'an upper bound for spec.a',
    ],
    'a union': [z.object({ a: z.union([z.boolean(), z.number()]).describe('a') }), 'no union'],
  };
  for (const [name, [schema, message]] of Object.entries(refused)) {
    it(`refuses ${name}`, () => {
      expect(() => structuralSchema(schema, 'spec')).toThrow(message);
    });
  }
});
