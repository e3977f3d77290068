import { defineConfig } from 'vitest/config';

/** These start a control plane each: about 700 MB and a few seconds of processor time before the first assertion. */
const CLUSTER = ['test/cluster/**/*.test.ts', 'test/e2e/*.test.ts', 'test/**/*.cluster.test.ts'];

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'units',
          include: ['test/**/*.test.ts'],
          exclude: CLUSTER,
          maxWorkers: 2,
          testTimeout: 30_000,
          hookTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'cluster',
          include: CLUSTER,
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
