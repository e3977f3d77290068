import { parseArgs } from 'node:util';
import { FakeVllm } from './server.ts';

/** Takes the flags of vLLM's own that it needs, and passes over the others: a process that can be killed. */
const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '8000' },
    'served-model-name': { type: 'string', default: 'parrot' },
    'max-loras': { type: 'string', default: '4' },
    'max-lora-rank': { type: 'string', default: '64' },
    'token-ms': { type: 'string', default: '0' },
  },
  strict: false,
});
const fake = await FakeVllm.start({
  host: String(values.host),
  port: Number(values.port),
  baseName: String(values['served-model-name']),
  maxLoras: Number(values['max-loras']),
  maxLoraRank: Number(values['max-lora-rank']),
  tokenMs: Number(values['token-ms']),
  isDev: false,
  // Of test/e2e/vllm.
  version: '0.32.0',
});
process.stdout.write(`${fake.url}\n`);
