import { parseArgs } from 'node:util';

/**
 * `npm run soak`: trainers against a cluster under disasters; `-- --only rl`: pushes without a pause to one server
 * whose streams have all policies; `-- --only churn`: a million requests to the engine alone.
 */
const { values } = parseArgs({ options: { only: { type: 'string', default: '' } }, strict: false });

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

if (values.only === 'rl') {
  const { runRl, whatFailed } = await import('./rl.ts');
  const report = await runRl({ pushes: 3000, answers: 36, streams: 32, slots: 40, say });
  say(JSON.stringify(report, null, 2));
  process.exitCode = whatFailed(report).length === 0 ? 0 : 1;
} else if (values.only === 'churn') {
  const { churn } = await import('./churn.ts');
  const report = await churn({ requests: 1_000_000, say });
  say(JSON.stringify(report, null, 2));
} else {
  await import('../e2e/soak.ts');
}
