import { describe, expect, it } from 'vitest';
import { ModelError } from '../../../server/model/errors.ts';
import { readSamplingDefaults } from '../../../server/model/sampling.ts';

describe('generation_config.json', () => {
  it('gives the sampling parameters that it names, and nothing else', () => {
    const named = { temperature: 0.7, top_p: 0.8, top_k: 20, min_p: 0.1, repetition_penalty: 1.05 };
    const others = { do_sample: false, eos_token_id: [1], max_length: 20, typical_p: 1 };
    expect(readSamplingDefaults({ ...named, ...others })).toEqual(named);
  });

  it('gives none where it is missing or says null', () => {
    expect(readSamplingDefaults(null)).toEqual({});
    expect(readSamplingDefaults({ temperature: null })).toEqual({});
  });

  it.each([
    ['temperature', -1],
    ['temperature', '0.7'],
    ['top_p', 0],
    ['top_k', 1.5],
    ['min_p', 2],
    ['repetition_penalty', 0],
  ])('with %s %j is refused by the name of the field', (field, value) => {
    const read = () => readSamplingDefaults({ [field]: value });
    expect(read).toThrow(ModelError);
    expect(read).toThrow(field);
  });
});
