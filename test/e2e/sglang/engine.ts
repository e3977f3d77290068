import { join } from 'node:path';
import { toolPath } from '../../support/tools.ts';

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
