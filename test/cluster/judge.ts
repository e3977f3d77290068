import { fileURLToPath } from 'node:url';
import { toolPath } from '../support/tools.ts';
import { runCommand } from './command.ts';

export interface Judgement {
  status: string;
  message: string;
}

/** What kstatus, and so Flux and kpt, make of each object. */
export function judgeKstatus(objects: object[]): Promise<Judgement[]> {
  return judge(['kstatus'], objects);
}

const HEALTH = fileURLToPath(new URL('../../examples/argocd/health', import.meta.url));

/** What Argo CD makes of each object of a kind, by our health check for it. */
export function judgeArgo(kind: 'LoraAdapter' | 'ServerPool', objects: object[]): Promise<Judgement[]> {
  return judge(['argocd', `${HEALTH}/lorikeet.dev_${kind}.lua`], objects);
}

async function judge(args: string[], objects: object[]): Promise<Judgement[]> {
  const told = await runCommand(toolPath('judge'), args, { input: JSON.stringify(objects) });
  return JSON.parse(told);
}
