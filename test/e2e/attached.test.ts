import { join } from 'node:path';
import { canonicalJson } from '../../server/contract/digest.ts';
import { BASE_MARK, markOf } from '../support/fake-vllm/server.ts';
import { tell } from './attached/story.ts';
import { fixtureAdapter } from './client.ts';
import { ROOT } from './world.ts';

const NODE = join(ROOT, 'node_modules/.bin/node');
const TOKENS = 40;

/** The protocol without a model; `npm run e2e:vllm` tells the same story with the real one. */
tell({
  engine: { kind: 'vllm', image: { entrypoint: [NODE, 'test/support/fake-vllm/main.ts'], cwd: ROOT } },
  servers: 2,
  async answerOf(style) {
    if (style === 'base') return BASE_MARK.repeat(TOKENS);
    const { tensors, config } = await fixtureAdapter(style);
    const given = Buffer.from(canonicalJson(JSON.parse(Buffer.from(config).toString())));
    return markOf({ tensors, config: given }).repeat(TOKENS);
  },
  startMs: 90_000,
});
