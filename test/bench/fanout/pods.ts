/** A process of server pods without a model: the real admin API, and an engine that takes all and looks at nothing. */
import type { StageReport } from '../../../native/types.ts';
import { FakeEngine } from '../../support/fake-engine.ts';
import { ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { BYTES_MAX, geometry } from './subject.ts';

class BlindEngine extends FakeEngine {
  override async stage(): Promise<StageReport> {
    return { slot: null, pages: 0, zeroEffect: false, evicted: [], packMs: 0, rounded: 0 };
  }
}

const [count = '1'] = process.argv.slice(2);
const options = {
  baseModel: { geometry: geometry() },
  maxAdapterBytes: BYTES_MAX,
  engine: () => new BlindEngine(),
  // As in operator.ts.
  relayLimits: { stallMs: 30_000, lateMs: 30_000 },
};
const urls: string[] = [];
let port = 0;
for (let at = 1; at <= Number(count); at += 1) {
  const pod = await ScriptedPod.start({ host: `127.0.6.${at}`, port, ...options });
  port = pod.port;
  urls.push(pod.url);
}
process.send?.({ urls });
process.on('disconnect', () => process.exit(0));
