import type { LoraAdapter } from '../../operator/api/lora-adapter.ts';
import type { ScriptedPod } from '../support/pod/scripted-pod.ts';
import type { ApiCall } from './api-proxy.ts';

/**
 * What a write of status says of pods before it is so: no more of them can be ready, and no revision current, than have
 * served it. That a pod is gone since, nobody may know yet.
 */
export function untruthsIn({ kind, body }: ApiCall, pods: readonly Pick<ScriptedPod, 'served'>[]): string[] {
  if (kind !== 'loraadapters/status') return [];
  const { status } = JSON.parse(body.toString()) as LoraAdapter;
  const servedBy = (digest: string | undefined) =>
    pods.filter(({ served }) => served.some((item) => item.digest === digest)).length;
  const ready = status?.pods?.ready ?? 0;
  const { desiredRevision: desired, currentRevision: current } = status ?? {};
  const untruths: string[] = [];
  if (ready > servedBy(desired?.digest)) untruths.push(`${ready} ready with ${desired?.short}`);
  if (current && servedBy(current.digest) === 0) untruths.push(`${current.short} is current`);
  return untruths.map((what) => `status says what is not so: ${what}`);
}
