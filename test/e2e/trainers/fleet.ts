import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startBridge } from '../../../server/bridge/app.ts';
import { type BridgeConfig, parseConfig } from '../../../server/bridge/config.ts';
import { createLog } from '../../../server/contract/log.ts';
import { pushUrl, servingUrl } from '../client.ts';
import { type AttachedEngine, NAMESPACE, POOL, World } from '../world.ts';

/** TRL's name of its adapter, of which `-v7` is the version. */
const ADAPTER = 'trl-policy';
/** Earlier versions of the trainer that are asked for still: its max_staleness, and those on their way. */
const KEEP_REVISIONS = 5;
const CLOSE_MS = 10_000;

/** Pods under an operator, and the bridge before them, which looks like one vLLM. */
export interface TrainedFleet {
  url: string;
  /** Kills the process of a server pod, whose name it returns; another comes by itself, and holds nothing. */
  killOne(): string;
  stop(): Promise<void>;
}

export interface FleetOptions {
  /** The trainer's folder. */
  loraRoot: string;
  /** One pod before an engine of another project, which takes so long to begin, instead of two of ours. */
  attached?: { engine: AttachedEngine; startMs: number };
}

export async function startFleet({ loraRoot, attached }: FleetOptions): Promise<TrainedFleet> {
  const options = {
    ...{ servers: attached === undefined ? 2 : 1, operators: 1, forVllmTrainer: true },
    ...(attached && { attached: attached.engine }),
  };
  const world = await World.start(options);
  const folder = await mkdtemp(join(tmpdir(), 'lorikeet-bridge-'));
  try {
    await world.applyCharts(options);
    await world.untilPodsReady(options.servers, options.operators, attached?.startMs);
    await world.apply({
      apiVersion: 'lorikeet.dev/v1alpha1',
      kind: 'LoraAdapter',
      metadata: { name: ADAPTER, namespace: NAMESPACE },
      spec: {
        poolRef: { name: POOL },
        source: { push: {} },
        update: { keepRevisions: KEEP_REVISIONS },
      },
    });
    await world.untilAdapter(ADAPTER, 'observed', ({ conditions }) => conditions.Ready !== undefined);
    await world.allowPush('trainer');
    const tokenFile = join(folder, 'token');
    await writeFile(tokenFile, await world.tokenFor('trainer', 'lorikeet-push'), { mode: 0o600 });
    const [operator] = await world.operators();
    if (operator === undefined) throw new Error('There is no operator pod');
    const pods = await world.servers();
    const config = parseConfig(
      [
        `--push=${pushUrl(operator.ip, NAMESPACE, ADAPTER)}`,
        `--push-token-file=${tokenFile}`,
        ...pods.map(({ ip }) => `--serving=${servingUrl(ip)}`),
        `--lora-root=${loraRoot}`,
        '--port=0',
      ],
      {},
    ) as BridgeConfig;
    const bridge = await startBridge(config, createLog('silent'));
    return {
      url: bridge.listening.serving,
      killOne: () => {
        const [victim] = pods;
        if (victim === undefined) throw new Error('There is no server pod');
        world.node.kill(NAMESPACE, victim.name);
        return victim.name;
      },
      stop: async () => {
        await bridge.close(CLOSE_MS);
        await world.stop();
        await rm(folder, { recursive: true });
      },
    };
  } catch (error) {
    await world.stop();
    throw error;
  }
}
