import { join } from 'node:path';
import { toolPath } from '../../support/tools.ts';
import { type RealEngine, startEngine } from '../attached/real-engine.ts';
import { PARROT } from '../world.ts';

/** What it wants besides: of the small model on few processors, float32 as the golden answers are. */
export const ARGS = ['--dtype=float32', '--max-model-len=1024', '--max-num-seqs=32'];
export const ENVIRONMENT = {
  VLLM_CPU_KVCACHE_SPACE: '1',
  VLLM_NO_USAGE_STATS: '1',
  HF_HUB_OFFLINE: '1',
  VLLM_ALLOW_RUNTIME_LORA_UPDATING: 'True',
  // The paths of its sockets are short; a pod's folder here is long.
  VLLM_RPC_BASE_PATH: '/var/tmp',
};

/** `vllm serve`. */
export function entrypoint(): string[] {
  return [join(toolPath('vllm'), 'bin/python'), '-m', 'vllm.entrypoints.cli.main', 'serve'];
}

/** One on a port of its own; resolves when it answers. */
export async function startVllm(
  args: string[],
  environment: Record<string, string> = {},
): Promise<RealEngine> {
  const command = [...entrypoint(), PARROT, '--served-model-name', 'parrot', ...ARGS, ...args];
  return await startEngine(command, { ...ENVIRONMENT, VLLM_LOGGING_LEVEL: 'ERROR', ...environment });
}
