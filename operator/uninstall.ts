import { FlagReader, helpText } from '../server/contract/flags.ts';
import { failToStart, openLog } from '../server/contract/program.ts';
import { letAdaptersGo } from './adapter/let-go.ts';
import { Objects } from './adapter/objects.ts';
import { FLAGS as OPERATOR_FLAGS } from './config.ts';
import { Rest } from './kube/rest.ts';

const FLAGS = {
  'watch-namespace': OPERATOR_FLAGS['watch-namespace'],
  'log-level': OPERATOR_FLAGS['log-level'],
};

/** What the chart runs when the operator is gone: LoraAdapters that are deleted later wait for nobody. */
async function main(): Promise<void> {
  const read = new FlagReader(FLAGS, process.argv.slice(2), process.env);
  if (read.wantsHelp) {
    process.stdout.write(helpText('node operator/uninstall.ts [flags]', FLAGS, []));
    return;
  }
  const { log } = openLog(read.oneOf('log-level'));
  const rest = Rest.fromKubeconfig({ log });
  const letGo = await letAdaptersGo(new Objects(rest), read.optional('watch-namespace') ?? undefined);
  log.info({ letGo }, 'no LoraAdapter waits for the operator any more');
  process.exit(0);
}

main().catch((error: unknown) => failToStart(error));
