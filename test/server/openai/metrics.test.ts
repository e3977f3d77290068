import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createMetrics } from '../../../server/telemetry/metrics.ts';
import type { MetricsSource } from '../../../server/telemetry/scraped.ts';
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

  // What vLLM's dashboards ask for.
  const LABELS = 'engine="0",model_name="parrot"';
  it.each([
    [`vllm:time_to_first_token_seconds_count{${LABELS}}`, 1],
    [`vllm:inter_token_latency_seconds_count{${LABELS}}`, 2],
    [`vllm:e2e_request_latency_seconds_count{${LABELS}}`, 1],
    [`vllm:generation_tokens_total{${LABELS}}`, 3],
    [`vllm:request_generation_tokens_sum{${LABELS}}`, 3],
    [`vllm:request_generation_tokens_count{${LABELS}}`, 1],
    [`vllm:request_prompt_tokens_count{${LABELS}}`, 1],
    [`vllm:request_queue_time_seconds_count{${LABELS}}`, 1],
    [`vllm:request_prefill_time_seconds_count{${LABELS}}`, 1],
    [`vllm:request_decode_time_seconds_count{${LABELS}}`, 1],
    [`vllm:num_preemptions_total{${LABELS}}`, 0],
    [`vllm:request_success_total{${LABELS},finished_reason="length"}`, 1],
    [`vllm:request_success_total{${LABELS},finished_reason="stop"}`, 0],
    [`vllm:request_success_total{${LABELS},finished_reason="abort"}`, 0],
  ])('has %s', async (name, value) => {
    expect((await server.get('/metrics')).body.split('\n')).toContain(`${name} ${value}`);
  });

  it('has the prompt tokens under both names, and buckets', async () => {
    const [ours] = await series('lorikeet_prompt_tokens_total');
    expect((await series('vllm:prompt_tokens_total'))[0]).toBe(
      `vllm:prompt_tokens_total{${LABELS}} ${ours?.split(' ')[1]}`,
    );
    const first = await series('vllm:time_to_first_token_seconds_bucket');
    expect(first.at(-1)).toBe(`vllm:time_to_first_token_seconds_bucket{le="+Inf",${LABELS}} 1`);
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

  it('tells the traffic of each adapter', async () => {
    expect(await series('lorikeet_adapter_requests_total')).toEqual([
      'lorikeet_adapter_requests_total{adapter="sql"} 1',
    ]);
    expect(await series('lorikeet_adapter_generated_tokens_total')).toEqual([
      'lorikeet_adapter_generated_tokens_total{adapter="sql"} 3',
    ]);
    expect(await series('lorikeet_adapter_first_token_seconds_count')).toEqual([
      'lorikeet_adapter_first_token_seconds_count{adapter="sql"} 1',
    ]);
  });

  it('tells the revision of each adapter as the number that its short digest is', async () => {
    const { body } = await server.get('/v1/models');
    const { revision } = body.data.find(({ id }: { id: string }) => id === 'sql');
    const revisions = await series('lorikeet_adapter_revision');
    expect(revisions).toHaveLength(3);
    expect(revisions).toContain(
      `lorikeet_adapter_revision{adapter="sql"} ${Number.parseInt(revision.slice(7, 19), 16)}`,
    );
  });

  it('counts slots, not the names that share one', async () => {
    expect(await series('lorikeet_slots_used')).toEqual([`lorikeet_slots_used{${LABELS}} 2`]);
    await server.put('sql-too', 'sql');
    await server.put('sql-again', 'sql');
    expect(await series('lorikeet_slots_used')).toEqual([`lorikeet_slots_used{${LABELS}} 2`]);
  });

  it('counts admin calls, refusals, evictions and the bytes of the host tier', async () => {
    const before = Number((await series('lorikeet_evictions_total'))[0]?.split(' ')[1]);
    expect(before).toBeGreaterThanOrEqual(1);
    await server.put('bad', 'sql', { 'x-lora-config': '!' });
    expect(await series('lorikeet_refusals_total')).toEqual([
      'lorikeet_refusals_total{code="unauthenticated"} 0',
      'lorikeet_refusals_total{code="malformed_config"} 1',
    ]);
    expect(await series('lorikeet_admin_calls_total')).toContain(
      'lorikeet_admin_calls_total{route="/v1/adapters/:name",code="400"} 1',
    );
    expect(await series('lorikeet_host_bytes')).toEqual([`lorikeet_host_bytes{${LABELS}} ${2 ** 30}`]);
    const [used] = await series('lorikeet_host_bytes_used');
    expect(Number(used?.split(' ')[1])).toBeGreaterThan(1_000_000);
  });
});

function source({
  residency = { slots: 4, resident: [] as string[], host: [] as string[] },
  waitingAdapters = [] as string[],
} = {}): MetricsSource {
  return {
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
      prefixTokensQueried: 0,
      prefixTokensHit: 0,
      waitingAdapters,
      slots: [],
    }),
    hostTier: { bytesMax: 0, usedBytes: 0 },
    residency: () => residency,
    current: () => residency.resident.map((name) => ({ name, digest: `sha256:${'f'.repeat(64)}`, step: 7 })),
  };
}

describe('the series of adapters', () => {
  it('follow residency and queue, and nothing stays behind', async () => {
    const residency = { slots: 4, resident: ['b', 'a'], host: ['c'] };
    const waitingAdapters = ['a', 'c'];
    const metrics = createMetrics(source({ residency, waitingAdapters }), () => 1_700_000_000_500);
    const lines = async () =>
      (await metrics.text()).split('\n').filter((line) => /^vllm:(lora_|kv)/.test(line));
    expect(await lines()).toContain(
      'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="c"} 1700000000.5',
    );
    expect(await lines()).toContain('vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25');
    const traffic = metrics.trafficOf('a');
    traffic.requests += 1;
    metrics.firstToken('a', 0.3);
    const ofAdapters = async () =>
      (await metrics.text()).split('\n').filter((line) => /^lorikeet_.*adapter="/.test(line));
    const told = await ofAdapters();
    expect(told).toContain('lorikeet_adapter_requests_total{adapter="a"} 1');
    expect(told).toContain('lorikeet_adapter_first_token_seconds_bucket{le="0.25",adapter="a"} 0');
    expect(told).toContain('lorikeet_adapter_first_token_seconds_bucket{le="0.5",adapter="a"} 1');
    expect(told).toContain(`lorikeet_adapter_revision{adapter="a"} ${2 ** 48 - 1}`);
    expect(told).toContain('lorikeet_adapter_step{adapter="a"} 7');
    residency.resident = [];
    residency.host = [];
    waitingAdapters.length = 0;
    const empty = await lines();
    expect(empty.filter((line) => line.startsWith('vllm:lora_adapter_loaded'))).toEqual([]);
    expect(empty.filter((line) => line.startsWith('vllm:lora_requests_info'))).toEqual([
      'vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters=""} 1700000000.5',
    ]);
    expect(await ofAdapters()).toEqual([]);
  });
});

describe('traffic of adapters that nobody scrapes', () => {
  it.each([
    [100, 'lorikeet_adapter_requests_total{adapter="a"} 1'],
    // Versions of a training that went on for days.
    [5_000, undefined],
  ])('is remembered of so many: %d', async (others, expected) => {
    const residency = { slots: 4, resident: [] as string[], host: [] as string[] };
    const metrics = createMetrics(source({ residency }));
    metrics.trafficOf('a').requests += 1;
    for (let version = 0; version < others; version += 1) metrics.trafficOf(`v@${version}`).requests += 1;
    residency.resident = ['a'];
    const lines = (await metrics.text()).split('\n');
    expect(lines.find((line) => line.startsWith('lorikeet_adapter_requests_total'))).toBe(expected);
  });
});

describe('the table of metrics in server/README.md', () => {
  it('has every one of them, with its labels, in the words of its help', () => {
    const registered: { name: string; help: string; labelNames: string[] }[] = [];
    const spy = vi.spyOn(Registry.prototype, 'registerMetric');
    createMetrics(source());
    for (const [metric] of spy.mock.calls) registered.push(metric as never);
    spy.mockRestore();
    const rows = registered
      .filter(({ name }) => /^(lorikeet_|vllm:)/.test(name))
      .map(({ name, help, labelNames }) => [name, labelNames.join(', '), help].join(' | '));
    const readme = readFileSync(join(import.meta.dirname, '../../../server/README.md'), 'utf8');
    const table = readme.match(/\| metric .*\n\|[- |]*\n((?:\|.*\n)*)/)?.[1] ?? '';
    const written = table
      .trim()
      .split('\n')
      .map((row) => row.split('|').slice(1, -1))
      .map((cells) => cells.map((cell) => cell.replaceAll('`', '').trim()).join(' | '));
    expect(written.sort()).toEqual(rows.sort());
  });
});
