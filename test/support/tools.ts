import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

const SETUP = fileURLToPath(new URL('setup.mjs', import.meta.url));

const Tools = z.object({
  /** Folder of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl. */
  assets: z.string().nullable(),
  helm: z.string().nullable(),
  versitygw: z.string().nullable(),
  registry: z.string().nullable(),
  /** test/cluster/judges, built. */
  judge: z.string().nullable(),
  /** Folder of custom resource definitions of others, a file each. */
  foreignCrds: z.string().nullable(),
  /** Python with the trainers of test/e2e/trainers. */
  trainers: z.string().nullable(),
  /** A Python environment with vLLM. */
  vllm: z.string().nullable(),
  /** A Python environment with SGLang. */
  sglang: z.string().nullable(),
  /** Folder of prometheus and promtool. */
  prometheus: z.string().nullable(),
  /** Folder of kubelet and kube-proxy. */
  node: z.string().nullable(),
  /** An archive of the images of our Dockerfiles. */
  images: z.string().nullable(),
});
/** What brings those that the target `tools` does not. */
const TARGETS: Partial<Record<Tool, string>> = {
  trainers: 'trainers',
  vllm: 'vllm',
  sglang: 'sglang',
  judge: 'cluster',
  foreignCrds: 'cluster',
  node: 'node',
  images: 'node',
  prometheus: 'cluster',
};
export type Tool = keyof z.infer<typeof Tools>;

/** Null: it is not there. */
export function findTool(tool: Tool): string | null {
  const reply = execFileSync(process.execPath, [SETUP, 'where'], { encoding: 'utf8' });
  return Tools.parse(JSON.parse(reply))[tool];
}

/** Where setup.mjs put a tool. */
export function toolPath(tool: Tool): string {
  const path = findTool(tool);
  if (path === null)
    throw new Error(
      `${tool} is missing: run \`node test/support/setup.mjs ${TARGETS[tool] ?? 'tools'}\` first`,
    );
  return path;
}

/** The user's own command where PATH has it, else the one that setup.mjs built. */
export function commandPath(name: 'kubectl' | 'helm'): string {
  const folders = (process.env.PATH ?? '').split(delimiter).filter((folder) => folder !== '');
  const own = folders.map((folder) => join(folder, name)).find(existsSync);
  return own ?? (name === 'kubectl' ? join(toolPath('assets'), name) : toolPath(name));
}
