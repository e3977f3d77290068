import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import { type AdapterFiles, ask, fixtureAdapter, pushed, pushUrl } from '../client.ts';
import { BUCKET, pushedAdapter, storedAdapter } from '../manifests.ts';
import { type AttachedEngine, NAMESPACE, World } from '../world.ts';

const QUESTION = 'List the name of all players from Lima.';
/** How far Ready may be behind: it is written every two seconds at most. */
const BEHIND_MS = 5_000;
const REQUESTS = 2_000;
/** Of the pushes amid these. */
const FIRST_STEP = 10;
const LAST_STEP = 21;
const STYLES = ['sql', 'pirate', 'json'] as const;
export type Style = (typeof STYLES)[number];

export interface Story {
  engine: AttachedEngine;
  /** Pods of the pool. */
  servers: number;
  /** What the engine answers QUESTION under an adapter of that style, or `base`. */
  answerOf(style: Style | 'base', question: string): Promise<string>;
  /** How long an engine takes to begin. */
  startMs: number;
}

/** The chain's story with pods whose engine is another project's: from `kubectl apply` and push to its tokens. */
export function tell({ engine, servers, answerOf, startMs }: Story): void {
  let world: World;
  let token: string;

  beforeAll(async () => {
    const options = { servers, operators: 1, attached: engine };
    world = await World.start(options);
    await world.applyCharts(options);
    await world.untilPodsReady(servers, 1, startMs);
    token = await world.tokenFor('trainer', 'lorikeet-push');
    await world.allowPush('trainer');
  }, startMs + 60_000);
  afterAll(() => world?.stop(), 60_000);

  async function expectEverywhere(model: string, style: Style | 'base'): Promise<void> {
    const expected = await answerOf(style, QUESTION);
    const pods = (await world.servers()).filter(({ ready, terminating }) => ready && !terminating);
    const texts = await Promise.all(pods.map(async ({ ip }) => (await ask(ip, model, QUESTION)).text));
    expect(texts).toEqual(Array(servers).fill(expected));
  }
  async function push(files: AdapterFiles, step: number) {
    const [operator] = await world.operators();
    return await pushed(pushUrl(operator?.ip ?? '', NAMESPACE, 'live'), files, { token, step });
  }
  const readyOf = async (name: string) => (await world.adapter(name)).conditions.Ready?.status;

  describe('the story', () => {
    it('serves the base under its name', () => expectEverywhere('parrot', 'base'));

    it('serves an adapter from S3 once it is Ready, on every pod', async () => {
      const { tensors, config } = await fixtureAdapter('sql');
      await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
      await world.store.put(BUCKET, 'sql/adapter_config.json', config);
      await world.apply(storedAdapter('sql', world.store.endpoint));
      await world.untilReady('sql');
      await expectEverywhere('sql', 'sql');
    });

    it('serves each push on every pod when it is answered, and says of which revision a token is', async () => {
      await world.apply(pushedAdapter('live'));
      await world.untilAdapter('live', 'observed', ({ conditions }) => conditions.Ready !== undefined);
      for (const [index, style] of STYLES.entries()) {
        const { revision } = await push(await fixtureAdapter(style), index + 1);
        await expectEverywhere('live', style);
        const [pod] = await world.servers();
        expect(await ask(pod?.ip ?? '', 'live', QUESTION)).toMatchObject({ revision, header: revision });
      }
    });

    it('serves a revision that is kept by its step', async () => {
      await expectEverywhere('live@step-2', 'pirate');
    });

    it('answers each of 2,000 requests under the revision that it names, while twelve are pushed', async () => {
      const texts = new Map<string, string>();
      const styles = await Promise.all(
        STYLES.map(async (style) => ({
          files: await fixtureAdapter(style),
          text: await answerOf(style, QUESTION),
        })),
      );
      const [pod] = await world.servers();
      const wrong: unknown[] = [];
      let left = REQUESTS;
      const client = async () => {
        while (left > 0) {
          left -= 1;
          const { status, text, revision } = await ask(pod?.ip ?? '', 'live', QUESTION);
          const known = texts.get(revision ?? '');
          if (status !== 200 || (known !== undefined && known !== text))
            wrong.push({ status, text, revision });
          texts.set(revision ?? '', text);
        }
      };
      const clients = Promise.all(Array.from({ length: 16 }, client));
      for (let step = FIRST_STEP; step <= LAST_STEP; step += 1) {
        // Spread over the requests.
        const share = (LAST_STEP - step + 1) / (LAST_STEP - FIRST_STEP + 2);
        await eventually(
          'it is its turn',
          { timeoutMs: 200_000, everyMs: 20 },
          () => left <= REQUESTS * share || undefined,
        );
        const { files, text } = styles[step % styles.length] as (typeof styles)[number];
        const { revision } = await push(files, step);
        expect([undefined, text]).toContain(texts.get(revision));
        texts.set(revision, text);
      }
      await clients;
      expect(wrong).toEqual([]);
    }, 300_000);

    it('takes a deleted adapter out', async () => {
      await world.plane.kubectl(['delete', 'lora', 'sql', '-n', NAMESPACE, '--timeout=60s']);
      for (const { ip } of await world.servers()) expect((await ask(ip, 'sql', QUESTION)).status).toBe(404);
    });
  });

  describe('what is killed', () => {
    const killed = async (containers: string[]) => {
      const expected = await answerOf(STYLES[LAST_STEP % STYLES.length] as Style, QUESTION);
      expect(await readyOf('live')).toBe('True');
      const [victim] = await world.servers();
      if (victim === undefined) throw new Error('no server pod');
      const serves = async () => {
        const answer = await ask(victim.ip, 'live', QUESTION).catch(() => null);
        return answer?.status === 200 && answer.text === expected;
      };
      const beganMs = performance.now();
      for (const container of containers) world.node.kill(NAMESPACE, victim.name, container);
      let isAway = false;
      let lieMs = 0;
      await eventually(
        'it serves again, and Ready says so',
        { timeoutMs: startMs, everyMs: 50 },
        async () => {
          const isReady = (await readyOf('live')) === 'True';
          const isServing = await serves();
          isAway ||= !isServing;
          if (isReady && !isServing) lieMs = performance.now() - beganMs;
          return (isAway && isReady && isServing) || undefined;
        },
      );
      expect(lieMs).toBeLessThan(BEHIND_MS);
    };

    it(
      'the engine: Ready is true again when the pod serves the adapter again',
      () => killed(['engine']),
      startMs + 120_000,
    );
    it('the server: the same', () => killed(['server']), startMs + 120_000);
    it('both: the same', () => killed(['engine', 'server']), startMs + 120_000);
  });
}
