import { START_MS } from '../attached/real-engine.ts';
import { tell } from '../attached/story.ts';
import { goldenAnswer } from '../golden.ts';
import { ROOT } from '../world.ts';
import { ARGS, ENVIRONMENT, entrypoint } from './engine.ts';

tell({
  engine: {
    kind: 'sglang',
    image: { entrypoint: entrypoint(), cwd: ROOT, env: ENVIRONMENT },
    args: ARGS,
  },
  servers: 1,
  answerOf: goldenAnswer,
  startMs: START_MS,
});
