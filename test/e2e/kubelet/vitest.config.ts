import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

/** Started by main.ts, in namespaces of its own. */
export default defineConfig({
  root: resolve(import.meta.dirname, '../../..'),
  test: {
    include: ['test/e2e/kubelet/*.suite.ts'],
    fileParallelism: false,
    testTimeout: 240_000,
    hookTimeout: 240_000,
  },
});
