import { join } from 'node:path';
import { toolPath } from '../../support/tools.ts';
import { type RealEngine, startEngine } from '../attached/real-engine.ts';
import { PARROT } from '../world.ts';

/** What it needs on a processor: PyTorch's own operators, and float32 as the golden answers are. */
export const ARGS = [
  '--device=cpu',
  '--dtype=float32',
  '--attention-backend=torch_native',
  '--lora-backend=torch_native',
  '--sampling-backend=pytorch',
  '--grammar-backend=none',
  '--disable-overlap-schedule',
  '--skip-server-warmup',
  '--context-length=1024',
  '--max-total-tokens=8192',
  '--mem-fraction-static=0.3',
  '--log-level=error',
];
export const ENVIRONMENT = {
  SGLANG_USE_CPU_ENGINE: '1',
  HF_HUB_OFFLINE: '1',
  OMP_NUM_THREADS: '1',
  PYTHONWARNINGS: 'ignore',
};

/** `python -m sglang.launch_server` */
export function entrypoint(): string[] {
  return [join(toolPath('sglang'), 'bin/python'), 'test/e2e/sglang/launch.py'];
}

/** One on a port of its own; resolves when it answers. */
export function startSglang(args: string[]): Promise<RealEngine> {
  const model = ['--model-path', PARROT, '--served-model-name', 'parrot'];
  const lora = ['--enable-lora', '--lora-target-modules=all'];
  return startEngine([...entrypoint(), ...model, ...lora, ...ARGS, ...args], ENVIRONMENT);
}
