import { afterEach, describe, expect, it, vi } from 'vitest';
import { names } from '../../native/index.ts';
import { fixtureAdapter, TestEngine } from './support.ts';

afterEach(() => vi.unstubAllEnvs());

describe('what an adapter loses on its way into pages', () => {
  it.each([
    ['bfloat16', 'sql', 2 * 28],
    ['bfloat16', 'json', 0],
    ['float32', 'sql', 0],
  ] as const)('in %s, of %s, is told: %d tensors', async (dtype, adapter, rounded) => {
    await using served = await TestEngine.open('parrot', { dtype });
    expect(await served.serve(adapter)).toMatchObject({ rounded });
    expect(await served.serve(adapter)).toMatchObject({ rounded });
  });

  it('is never more than the number: what bf16 would make infinite is refused', async () => {
    const largest = new Float32Array([3.4e38]);
    const stage = async (dtype: 'float32' | 'bfloat16') => {
      await using served = await TestEngine.open('parrot', { dtype });
      const { body, modules } = fixtureAdapter(served.model, 'parrot', 'sql');
      const changed = Buffer.from(body);
      changed.set(new Uint8Array(largest.buffer), modules[3]?.b.offset);
      return await served.engine.stage('sha256:x', changed, modules);
    };
    await expect(stage('float32')).resolves.toMatchObject({ rounded: 0 });
    await expect(stage('bfloat16')).rejects.toMatchObject({ code: 'non_finite', module: 3, factor: 'b' });
  });
});

describe('what computes', () => {
  it('is float32 alone on the reference backend', async () => {
    await expect(
      TestEngine.open('parrot', { backend: 'reference', dtype: 'bfloat16' }),
    ).rejects.toMatchObject({ code: 'invalid_argument', field: 'dtype' });
  });

  it('follows the type of the weights where it may choose', async () => {
    await using served = await TestEngine.open('parrot', { dtype: 'auto' });
    expect(served.engine.info).toMatchObject({ backend: names().instructionSets.at(-1), dtype: 'bfloat16' });
  });

  it('is the instruction set that LORIKEET_ISA names, of those that are there', async () => {
    vi.stubEnv('LORIKEET_ISA', 'reference');
    await using served = await TestEngine.open('parrot');
    expect(served.engine.info.backend).toBe('reference');
    vi.stubEnv('LORIKEET_ISA', 'abacus');
    await expect(TestEngine.open('parrot')).rejects.toMatchObject({
      code: 'unsupported_backend',
      message: expect.stringContaining(names().instructionSets.join(', ')),
    });
  });
});
