/** What the tests hold our objects and examples against: libraries and schemas of tools that others run beside us. */
import { copyFileSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf, ROOT } from './files.mjs';
import { buildGo, ensureGo, goEnvironment } from './go.mjs';
import { run } from './run.mjs';

const JUDGE_SOURCE = join(ROOT, 'test/cluster/judges');

/** Custom resource definitions as the Go modules of their projects carry them. */
const FOREIGN_CRDS = [
  {
    module: 'sigs.k8s.io/gateway-api@v1.5.0',
    files: [
      'config/crd/standard/gateway.networking.k8s.io_gateways.yaml',
      'config/crd/standard/gateway.networking.k8s.io_httproutes.yaml',
    ],
  },
  {
    module: 'sigs.k8s.io/gateway-api-inference-extension@v1.5.0',
    files: ['config/crd/bases/inference.networking.k8s.io_inferencepools.yaml'],
  },
  { module: 'github.com/kedacore/keda/v2@v2.21.0', files: ['config/crd/bases/keda.sh_scaledobjects.yaml'] },
  {
    module: 'github.com/fluxcd/kustomize-controller@v1.7.3',
    files: ['config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml'],
  },
];
const CRD_NAMES = FOREIGN_CRDS.flatMap(({ files }) => files.map((file) => basename(file)));

export async function ensureJudge() {
  await ensureBuilt(judgeFolder(), ['judge'], 'building kstatus and a Lua', '1 min', async (folder) =>
    buildGo(await ensureGo(), { source: JUDGE_SOURCE, output: join(folder, 'judge') }),
  );
}

export async function ensureForeignCrds() {
  await ensureBuilt(
    foreignCrdsFolder(),
    CRD_NAMES,
    'fetching definitions of others',
    '1 min',
    async (folder) => {
      const { command, toolchain } = await ensureGo();
      const options = { cwd: cacheDir(), env: goEnvironment(toolchain) };
      for (const { module, files } of FOREIGN_CRDS) {
        const { Dir } = JSON.parse(await run(command, ['mod', 'download', '-json', module], options));
        for (const file of files) copyFileSync(join(Dir, file), join(folder, basename(file)));
      }
    },
  );
}

/** What the tests read (test/support/tools.ts); null where it is missing. */
export function findFieldTools() {
  const [judge, crds] = [judgeFolder(), foreignCrdsFolder()];
  return {
    judge: hasAll(judge, ['judge']) ? join(judge, 'judge') : null,
    foreignCrds: hasAll(crds, CRD_NAMES) ? crds : null,
  };
}

function judgeFolder() {
  const sources = ['go.mod', 'go.sum', 'main.go'].map((name) => readFileSync(join(JUDGE_SOURCE, name)));
  return join(cacheDir(), 'tools', `judge-${keyOf(...sources, process.platform, process.arch)}`);
}

function foreignCrdsFolder() {
  return join(cacheDir(), 'tools', `foreign-crds-${keyOf(JSON.stringify(FOREIGN_CRDS))}`);
}
