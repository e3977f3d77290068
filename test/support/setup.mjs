/**
 * Brings a clean clone to where it can run: packages, the native addon and, for `cluster`, a control plane and tools.
 * Plain JavaScript without dependencies, because it runs before there are any, on whatever Node (≥ 18) is there.
 */
import { ensureAddon, ensureSimt } from './setup/addon.mjs';
import { ensureClusterTools, findClusterTools } from './setup/cluster-tools.mjs';
import { ensureForeignCrds, ensureJudge, findFieldTools } from './setup/field-tools.mjs';
import { ensureImages, findImages } from './setup/images.mjs';
import { ensureNodeModules } from './setup/node-modules.mjs';
import { ensureNodePackages, ensureNodePrograms, findNodePrograms } from './setup/node-parts.mjs';
import { ensurePrometheus, findPrometheus } from './setup/prometheus.mjs';
import { beQuiet, SetupError } from './setup/run.mjs';
import { ensureSglang, findSglang } from './setup/sglang.mjs';
import { ensureCurl } from './setup/toolchain.mjs';
import { ensureTrainers, findTrainersPython } from './setup/trainers.mjs';
import { ensureVllm, findVllm } from './setup/vllm.mjs';

const USAGE = `usage: node test/support/setup.mjs TARGET [--quiet]
  packages packages
  server   packages and the native addon
  tools    packages, a Kubernetes control plane, helm, an S3 server and an OCI registry
  demo     packages, the native addon, these tools and curl
  cluster  all of these, what judges our objects, the emulated device of the CUDA backend, and Prometheus where
           Debian has it
  trainers a Python environment with TRL
  vllm     a Python environment with vLLM for the CPU
  sglang   one with SGLang, on that of vLLM
  node-packages  containerd, runc, buildah and what else a real node needs from Debian
  node     a control plane and tools, kubelet, kube-proxy and the images of our Dockerfiles
  where    print the places of the control plane and the tools as JSON on stdout, build nothing`;

const TARGETS = {
  packages: [ensureNodeModules],
  server: [ensureNodeModules, ensureAddon],
  tools: [ensureNodeModules, ensureClusterTools],
  demo: [ensureNodeModules, atOnce(ensureAddon, ensureClusterTools), ensureCurl],
  cluster: [
    ensureNodeModules,
    atOnce(ensureAddon, ensureClusterTools),
    ensureSimt,
    ensureJudge,
    ensureForeignCrds,
    ensureCurl,
    ensurePrometheus,
  ],
  trainers: [ensureTrainers],
  vllm: [ensureVllm],
  sglang: [ensureSglang],
  'node-packages': [ensureNodePackages],
  node: [ensureNodeModules, ensureClusterTools, ensureNodePrograms, ensureImages],
  where: [tellWhere],
};

/** What one of them waits for from the network, the other computes in. */
function atOnce(...steps) {
  return () => Promise.all(steps.map((step) => step()));
}

async function tellWhere() {
  const places = {
    ...findClusterTools(),
    ...findFieldTools(),
    trainers: await findTrainersPython(),
    vllm: await findVllm(),
    sglang: await findSglang(),
    prometheus: findPrometheus(),
    node: findNodePrograms(),
    images: findImages(),
  };
  process.stdout.write(`${JSON.stringify(places)}\n`);
}

async function main([target, ...rest]) {
  if (rest[0] === '--quiet') {
    rest.shift();
    beQuiet();
  }
  const steps = Object.hasOwn(TARGETS, target ?? '') && rest.length === 0 ? TARGETS[target] : null;
  if (steps === null) throw new SetupError(USAGE);
  for (const step of steps) await step();
}

main(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
  // At once: a step beside it may still have minutes to go.
  process.exit(1);
});
