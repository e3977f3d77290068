import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adapterFlags, type ParrotServer, startParrot } from '../../support/parrot-server.ts';

/**
 * Endpoint pickers of the Gateway API Inference Extension route by what they scrape. Here are their published rules: of
 * vllm:lora_requests_info the series with the largest value counts, names are separated by commas, and a pod gets 1 where
 * the adapter runs, 0.8 where there is room for one more, 0.6 where it waits, and else nothing.
 */
interface Scraped {
  max: number;
  running: Set<string>;
  waiting: Set<string>;
}

function scrape(text: string): Scraped {
  const series = [...text.matchAll(/^vllm:lora_requests_info\{(.*)\} (\S+)$/gm)].map(
    ([, labels = '', value]) => ({
      labels: Object.fromEntries<string | undefined>(
        [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', text]) => [key, text] as const),
      ),
      value: Number(value),
    }),
  );
  const latest = series.toSorted((a, b) => b.value - a.value)[0];
  if (latest === undefined) throw new Error('Expected vllm:lora_requests_info');
  const names = (label: string) =>
    new Set(
      (latest.labels[label] ?? '')
        .split(',')
        .map((name) => name.trim())
        .filter(Boolean),
    );
  return {
    max: Number.parseInt(latest.labels.max_lora ?? '', 10),
    running: names('running_lora_adapters'),
    waiting: names('waiting_lora_adapters'),
  };
}

function score({ max, running, waiting }: Scraped, model: string): number {
  if (running.has(model)) return 1;
  if (running.size + waiting.size < max) return 0.8;
  return waiting.has(model) ? 0.6 : 0;
}

let pods: ParrotServer[];
beforeAll(async () => {
  pods = await Promise.all([
    startParrot(['--slots', '2', ...adapterFlags(['sql', 'pirate'])]),
    startParrot(['--slots', '2', ...adapterFlags(['json'])]),
  ]);
});
afterAll(() => Promise.all(pods.map((pod) => pod.close())));

const scores = async (model: string) =>
  Promise.all(pods.map(async (pod) => score(scrape((await pod.get('/metrics')).body), model)));
const ask = (pod: ParrotServer | undefined, model: string) =>
  pod?.post('/v1/completions', { model, prompt: 'Hi', max_tokens: 2, temperature: 0 });

describe('an endpoint picker', () => {
  it.each(['sql', 'pirate', 'json'])('sends requests for %s to the pod that holds it', async (model) => {
    const found = await scores(model);
    const best = found.indexOf(Math.max(...found));
    expect(found[best]).toBe(1);
    expect((await ask(pods[best], model))?.status).toBe(200);
    expect((await ask(pods[1 - best], model))?.status).toBe(404);
  });

  it('finds room where there is some, and none in a pod whose slots are taken', async () => {
    expect(await scores('nobody')).toEqual([0, 0.8]);
  });
});
