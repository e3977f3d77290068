import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { backends, createEngine, names } from '../../native/index.ts';
import { ENGINE_ERRORS, type EngineOptions, type GenerateRequest, LORA_MODULES } from '../../native/types.ts';
import { fixtureAdapter, fixtureModel, GREEDY, TestEngine } from './support.ts';

const parrot = await fixtureModel('parrot');
const sql = fixtureAdapter(parrot, 'parrot', 'sql');

const OPTIONS: EngineOptions = {
  model: parrot.descriptor,
  backend: 'cpu',
  dtype: 'float32',
  slots: 2,
  maxRank: 64,
  kvBytes: 1 << 20,
  maxBatch: 2,
  maxBatchTokens: 64,
  maxWaiting: 2,
  threads: 1,
  prefixCache: true,
};

const REQUEST: GenerateRequest = { ...GREEDY, id: 1, prompt: [1, 2, 3], stopTokens: [], maxTokens: 4 };

/** Every method, called in a valid way. */
const METHODS: Record<string, (served: TestEngine) => unknown> = {
  stage: ({ engine }) => engine.stage('sha256:sql', sql.body, sql.modules),
  activate: ({ engine }) => engine.activate('style', 'sha256:sql', false),
  deactivate: ({ engine }) => engine.deactivate('style'),
  release: ({ engine }) => engine.release('sha256:sql'),
  submit: ({ engine }) => engine.submit({ ...REQUEST, id: 999 }),
  cancel: ({ engine }) => engine.cancel(999),
  snapshot: ({ engine }) => engine.snapshot(),
  resetPrefixCache: ({ engine }) => engine.resetPrefixCache(),
};

const calling = async (method: string, served: TestEngine) => METHODS[method]?.(served);

describe.each(Object.keys(METHODS))('%s', (method) => {
  it('works on an open engine', async () => {
    await using served = await TestEngine.open('parrot');
    await served.serve('sql', 'sha256:sql', 'style');
    await calling(method, served);
  });

  it('is refused while the engine closes and when it is closed', async () => {
    const served = await TestEngine.open('parrot');
    const closing = served.engine.close();
    await expect(calling(method, served)).rejects.toMatchObject({ code: 'closing' });
    await closing;
    await expect(calling(method, served)).rejects.toMatchObject({ code: 'closing' });
  });
});

describe('close', () => {
  it('ends what is under way with `closing`, and can be called again', async () => {
    const served = await TestEngine.open('parrot', { maxBatch: 1 });
    const requests = [1, 2].map(() => served.generate({ prompt: [1, 2], stopTokens: [], maxTokens: 1000 }));
    const staged = served.engine.stage('sha256:sql', sql.body, sql.modules);
    const ends = Promise.allSettled([...requests, staged]);
    await Promise.all([served.engine.close(), served.engine.close()]);
    for (const end of await ends) {
      if (end.status === 'rejected') expect(end.reason).toMatchObject({ code: 'closing' });
    }
    expect((await ends).slice(0, 2).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await served.engine.close();
  });
});

describe('createEngine', () => {
  const config = parrot.descriptor.config;
  const model = parrot.descriptor;
  const wrong: [string, Partial<EngineOptions>, string][] = [
    ['no slots', { slots: 0 }, 'slots'],
    ['a fraction', { maxRank: 1.5 }, 'maxRank'],
    ['not a number', { threads: Number.NaN }, 'threads'],
    ['less than a block', { kvBytes: 100 }, 'kvBytes'],
    ['a missing file', { model: { ...model, files: ['/no/such/file'] } }, 'files'],
    ['a short file list', { model: { ...model, files: [] } }, 'embedTokens'],
    ['too many layers', { model: { ...model, config: { ...config, layers: 5 } } }, 'layers'],
    ['a wrong shape', { model: { ...model, config: { ...config, ffnSize: 641 } } }, 'layers[0].gateProj'],
    ['an offset outside', { model: { ...model, norm: { ...model.norm, offset: 1e9 } } }, 'norm'],
    ['a size that lies', { model: { ...model, norm: { ...model.norm, bytes: 4 } } }, 'norm'],
    ['few frequencies', { model: { ...model, config: { ...config, ropeInvFreq: [1] } } }, 'ropeInvFreq'],
  ];

  it.each(wrong)('refuses %s', (_, override, field) => {
    expect(() => createEngine({ ...OPTIONS, ...override }, () => {})).toThrow(
      expect.objectContaining({ code: 'invalid_argument', field }),
    );
  });

  it('refuses an unknown backend, and lists those there are', () => {
    expect(() => createEngine({ ...OPTIONS, backend: 'abacus' as 'cpu' }, () => {})).toThrow(
      expect.objectContaining({ code: 'unsupported_backend' }),
    );
    expect(backends().find(({ name }) => name === 'reference')).toMatchObject({ available: true });
  });

  it('has the same names for errors and modules on both sides of the addon', () => {
    expect(names()).toMatchObject({ errors: [...ENGINE_ERRORS], modules: [...LORA_MODULES] });
  });
});

describe('submit', () => {
  const wrong: [string, Partial<GenerateRequest>, string][] = [
    ['an empty prompt', { prompt: [] }, 'prompt'],
    ['a token beyond the vocabulary', { prompt: [1024] }, 'prompt'],
    ['a negative token', { prompt: [-1] }, 'prompt'],
    ['more tokens than the cache holds', { maxTokens: 1000 }, 'maxTokens'],
    ['a negative temperature', { temperature: -1 }, 'temperature'],
    ['a mode that is none', { logprobsMode: 'drawn' as 'raw' }, 'logprobsMode'],
    ['a bias of no token', { logitBias: [[5000, 1]] }, 'logitBias'],
    ['a target without a name', { target: { kind: 'adapter', name: '' } }, 'target.name'],
    ['an infinite scale', { loraScale: Number.POSITIVE_INFINITY }, 'loraScale'],
    ['an id of 0', { id: 0 }, 'id'],
  ];

  it.each(wrong)('refuses %s', async (_, override, field) => {
    await using served = await TestEngine.open('parrot', { kvBytes: 1 << 20 });
    expect(() => served.engine.submit({ ...REQUEST, ...override })).toThrow(
      expect.objectContaining({ code: 'invalid_argument', field }),
    );
    expect(served.engine.snapshot()).toMatchObject({ running: 0, waiting: 0 });
  });

  it('refuses an id that is live', async () => {
    await using served = await TestEngine.open('parrot');
    served.engine.submit({ ...REQUEST, id: 5 });
    expect(() => served.engine.submit({ ...REQUEST, id: 5 })).toThrow(
      expect.objectContaining({ field: 'id' }),
    );
  });

  it('fails requests for adapters and revisions that are not there', async () => {
    await using served = await TestEngine.open('parrot');
    const ask = (target: GenerateRequest['target']) => served.generate({ prompt: [1], target });
    await expect(ask({ kind: 'adapter', name: 'none' })).rejects.toMatchObject({ code: 'adapter_not_found' });
    await expect(ask({ kind: 'revision', digest: 'sha256:none' })).rejects.toMatchObject({
      code: 'not_resident',
    });
    await served.serve('sql', 'sha256:sql', 'style');
    await served.engine.deactivate('style');
    await expect(ask({ kind: 'adapter', name: 'style' })).rejects.toMatchObject({
      code: 'adapter_not_found',
    });
    expect((await ask({ kind: 'revision', digest: 'sha256:sql' })).revision).toBe('sha256:sql');
  });

  it('refuses with queue_full what neither runs nor may wait', async () => {
    await using served = await TestEngine.open('parrot', { maxBatch: 2, maxWaiting: 3 });
    const requests = Array.from({ length: 9 }, () =>
      served.generate({ prompt: [1], stopTokens: [], maxTokens: 600 }),
    );
    const ends = await Promise.allSettled(requests);
    const refused = ends.filter(({ status }) => status === 'rejected');
    expect(refused).toHaveLength(4);
    for (const end of refused) expect(end).toMatchObject({ reason: { code: 'queue_full' } });
  });
});

describe('stage', () => {
  const resizable = new ArrayBuffer(sql.body.length, { maxByteLength: sql.body.length });
  Object.defineProperty(resizable, 'resizable', { value: false });
  const shared = new SharedArrayBuffer(sql.body.length);
  const copyInto = (buffer: ArrayBufferLike, body: Uint8Array) => {
    const copy = new Uint8Array(buffer);
    copy.set(body);
    return copy;
  };
  const [first] = sql.modules;
  if (!first) throw new Error('The sql adapter has no modules');
  const wrong: [string, unknown[], string][] = [
    ['no modules', ['sha256:x', sql.body, []], 'modules'],
    ['a body that is no Uint8Array', ['sha256:x', [1, 2], [first]], 'body'],
    ['a body that may shrink', ['sha256:x', copyInto(resizable, sql.body), [first]], 'body'],
    ['a body that others write', ['sha256:x', copyInto(shared, sql.body), [first]], 'body'],
    ['an empty digest', ['', sql.body, [first]], 'revision'],
    ['a layer that the model lacks', ['sha256:x', sql.body, [{ ...first, layer: 4 }]], 'modules[0].layer'],
    ['an unknown module', ['sha256:x', sql.body, [{ ...first, module: 'w_proj' }]], 'modules[0].module'],
    ['a rank above the maximum', ['sha256:x', sql.body, [{ ...first, rank: 65 }]], 'modules[0].rank'],
    ['a module twice', ['sha256:x', sql.body, [first, first]], 'modules[1].module'],
    ['a body cut short', ['sha256:x', sql.body.subarray(0, 500), [first]], 'modules[0].a.offset'],
    ['a scale that is no number', ['sha256:x', sql.body, [{ ...first, scale: '1' }]], 'modules[0].scale'],
    [
      'a dtype that is not served',
      ['sha256:x', sql.body, [{ ...first, a: { offset: 0, dtype: 'I8' } }]],
      'modules[0].a.dtype',
    ],
  ];

  it.each(wrong)('refuses %s', async (_, args, field) => {
    await using served = await TestEngine.open('parrot');
    const stage = served.engine.stage as (...args: unknown[]) => Promise<unknown>;
    await expect(stage.apply(served.engine, args)).rejects.toMatchObject({ code: 'invalid_argument', field });
    expect(served.engine.snapshot()).toMatchObject({ slots: [], pagesUsed: 0 });
  });

  it('refuses a body that is gone once its modules are read', async () => {
    await using served = await TestEngine.open('parrot');
    const body = Uint8Array.from(sql.body);
    const module = {
      ...first,
      get rank() {
        body.buffer.transfer();
        return first.rank;
      },
    };
    await expect(served.engine.stage('sha256:x', body, [module])).rejects.toMatchObject({
      code: 'invalid_argument',
      field: 'modules[0].a.offset',
    });
  });
});

describe('an idle engine', () => {
  // Half a second of waiting: long enough to tell sleeping from spinning.
  it('uses no processor time', async () => {
    await using served = await TestEngine.open('parrot', { threads: 2 });
    await served.generate({ prompt: [1, 2, 3] });
    await sleep(50);
    const before = process.cpuUsage();
    await sleep(500);
    const used = process.cpuUsage(before);
    expect((used.user + used.system) / 500_000).toBeLessThan(0.1);
  });
});
