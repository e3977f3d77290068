import { tell } from '../attached/story.ts';
import { goldenAnswer } from '../golden.ts';
import { ROOT } from '../world.ts';
import { ARGS, ENVIRONMENT, entrypoint, START_MS } from './engine.ts';

tell({
  engine: {
    image: { entrypoint: entrypoint(), cwd: ROOT, env: ENVIRONMENT },
    args: ARGS,
  },
  servers: 1,
  answerOf: goldenAnswer,
  startMs: START_MS,
});
