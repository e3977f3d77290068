import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

/** Started by main.ts, when there is the engine. */
export default defineConfig({
  root: resolve(import.meta.dirname, '../../..'),
  test: {
    include: ['test/e2e/{vllm,sglang}/*.suite.ts'],
    fileParallelism: false,
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
