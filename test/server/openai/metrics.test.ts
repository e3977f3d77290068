import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createMetrics } from '../../../server/telemetry/metrics.ts';
import { adapterFlags, type ParrotServer, startParrot, userSays } from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot(['--slots', '2', ...adapterFlags(['sql', 'pirate', 'json'])]);
  await server.post('/v1/chat/completions', {
    model: 'sql',
    messages: userSays('Hi'),
    max_tokens: 3,
    temperature: 0,
  });
  await server.post('/v1/chat/completions', { model: 'nobody', messages: userSays('Hi') });
});
afterAll(() => server.close());

const series = async (name: string) => {
  const { body } = await server.get('/metrics');
  return (body as string)
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
};

describe('/metrics', () => {
  // The protocol of the Gateway API Inference Extension: endpoint pickers scrape exactly these.
  it.each([
    ['vllm:num_requests_waiting', /^vllm:num_requests_waiting\{engine="0",model_name="parrot"\} 0$/],
    ['vllm:num_requests_running', /^vllm:num_requests_running\{engine="0",model_name="parrot"\} 0$/],
    ['vllm:kv_cache_usage_perc', /\} 0$/],
    ['vllm:gpu_cache_usage_perc', /\} 0$/],
    ['vllm:cache_config_info', /^vllm:cache_config_info\{block_size="16",num_gpu_blocks="\d+"\} 1$/],
    ['vllm:num_gpu_loaded_lora_adapters', /\{engine="0",model_name="parrot"\} 2$/],
    ['vllm:num_cpu_loaded_lora_adapters', /\{engine="0",model_name="parrot"\} 1$/],
    ['vllm:max_gpu_lora_adapters', /\} 2$/],
  ])('has %s once', async (name, shape) => {
    expect(await series(name)).toEqual([expect.stringMatching(shape)]);
  });

  it('has exactly one vllm:lora_requests_info, whose value is now', async () => {
    const [only, ...more] = await series('vllm:lora_requests_info');
    expect(more).toEqual([]);
    const [, max, running, waiting, value] =
      /^vllm:lora_requests_info\{max_lora="(.*)",running_lora_adapters="(.*)",waiting_lora_adapters="(.*)"\} (.*)$/.exec(
        only ?? '',
      ) ?? [];
    expect({ max, waiting }).toEqual({ max: '2', waiting: '' });
    expect(running?.split(',')).toHaveLength(2);
    expect(running?.split(',')).toContain('sql');
    expect(Math.abs(Number(value) - Date.now() / 1000)).toBeLessThan(5);
  });

  it('has one vllm:lora_adapter_loaded per adapter and tier', async () => {
    const loaded = await series('vllm:lora_adapter_loaded');
    expect(loaded).toHaveLength(3);
    expect(loaded).toContainEqual(
      'vllm:lora_adapter_loaded{engine="0",model_name="parrot",adapter_name="sql",level="gpu",pinned="false"} 1',
    );
    expect(loaded.filter((line) => line.includes('level="cpu"'))).toHaveLength(1);
  });

  it('counts loads, swaps, tokens and requests by code', async () => {
    expect(
      Number((await series('vllm:lora_adapter_load_seconds_count'))[0]?.split(' ')[1]),
    ).toBeGreaterThanOrEqual(3);
    expect(await series('lorikeet_swaps_total')).toEqual(['lorikeet_swaps_total 3']);
    expect(await series('lorikeet_generated_tokens_total')).toEqual(['lorikeet_generated_tokens_total 3']);
    const requests = await series('lorikeet_requests_total');
    expect(requests).toContain('lorikeet_requests_total{endpoint="/v1/chat/completions",code="200"} 1');
    expect(requests).toContain('lorikeet_requests_total{endpoint="/v1/chat/completions",code="404"} 1');
  });
});

describe('the series of adapters', () => {
  it('follow residency and queue, and nothing stays behind', async () => {
    const residency = { slots: 4, resident: ['b', 'a'], host: ['c'] };
    const waitingAdapters = ['a', 'c'];
    const metrics = createMetrics(
      {
        baseModel: 'm',
        blockTokens: 16,
        kvBlocks: 8,
        pages: 1,
        snapshot: () => ({
          running: 0,
          waiting: 2,
          kvBlocksUsed: 2,
          pagesUsed: 0,
          step: 0,
          promptTokens: 0,
          generatedTokens: 0,
          preemptions: 0,
          waitingAdapters,
        }),
        residency: () => residency,
      },
      () => 1_700_000_000_500,
    );
    const lines = async () =>
      (await metrics.text()).split('\n').filter((line) => /^vllm:(lora_|kv)/.test(line));
    expect(await lines()).toContain(
      'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1700000000.5',
    );
    expect(await lines()).toContain('vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25');
    residency.resident = [];
    residency.host = [];
    waitingAdapters.length = 0;
    const empty = await lines();
    expect(empty.filter((line) => line.startsWith('vllm:lora_adapter_loaded'))).toEqual([]);
    expect(empty.filter((line) => line.startsWith('vllm:lora_requests_info'))).toEqual([
      'vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1700000000.5',
    ]);
  });
});
