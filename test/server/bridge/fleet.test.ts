import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { byDns, Fleet } from '../../../server/bridge/fleet.ts';
import { createLog } from '../../../server/contract/log.ts';
import { eventually } from '../../support/eventually.ts';

class ScriptedPod {
  status = 200;
  readonly server: Server = createServer((_request, response) => response.writeHead(this.status).end());

  async start(): Promise<this> {
    await new Promise<void>((done) => this.server.listen(0, '127.0.0.1', done));
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }
}

const dispatcher = new Agent();
let pods: [ScriptedPod, ScriptedPod];
beforeAll(async () => {
  pods = await Promise.all([new ScriptedPod().start(), new ScriptedPod().start()]);
});
afterAll(async () => {
  await dispatcher.destroy();
  await Promise.all(pods.map((pod) => pod.stop()));
});

let fleet: Fleet;
afterEach(() => fleet.stop());

async function fleetOf(discover: () => Promise<string[]>): Promise<Fleet> {
  fleet = new Fleet({ discover, dispatcher, lookMs: 10, discoverMs: 10, log: createLog('silent') });
  await fleet.start();
  return fleet;
}

const urls = () => fleet.ready().map(({ url }) => url);
const become = (wanted: string[]) =>
  eventually(`ready pods are ${wanted}`, { timeoutMs: 10_000, everyMs: 5 }, () =>
    JSON.stringify(urls()) === JSON.stringify(wanted) ? true : undefined,
  );

describe('a fleet', () => {
  it('has the pods that are ready when it starts', async () => {
    await fleetOf(async () => [pods[0].url, pods[1].url, 'http://127.0.0.1:1']);
    expect(urls()).toEqual([pods[0].url, pods[1].url]);
  });

  it('leaves out a pod while it is not ready', async () => {
    await fleetOf(async () => pods.map(({ url }) => url));
    pods[1].status = 503;
    await become([pods[0].url]);
    pods[1].status = 200;
    await become([pods[0].url, pods[1].url]);
  });

  it('follows what is discovered, and keeps a pod that stays', async () => {
    let found = [pods[0].url];
    await fleetOf(async () => found);
    const [first] = fleet.ready();
    found = [pods[1].url, pods[0].url];
    await become(found);
    expect(fleet.ready()[1]).toBe(first);
    found = [pods[1].url];
    await become(found);
  });

  it('keeps what it knows where nothing can be looked up', async () => {
    let asked = 0;
    await fleetOf(async () => {
      asked += 1;
      if (asked > 1) throw new Error('no such name');
      return [pods[0].url];
    });
    await eventually('it asked again', { timeoutMs: 10_000, everyMs: 5 }, () => asked > 2 || undefined);
    expect(urls()).toEqual([pods[0].url]);
  });

  it('gives up what waits for a pod that says nothing any more', async () => {
    const gone = await new ScriptedPod().start();
    await fleetOf(async () => [gone.url]);
    const [pod] = fleet.ready();
    const { life } = pod as NonNullable<typeof pod>;
    await gone.stop();
    await eventually('its life ends', { timeoutMs: 10_000, everyMs: 5 }, () => life.aborted || undefined);
    expect(String(life.reason)).toContain('gave no answer 5 times in a row');
  });
});

it('the addresses of a name are pods', async () => {
  expect(await byDns('localhost:8000')()).toContain('http://127.0.0.1:8000');
});
