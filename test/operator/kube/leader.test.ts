import type { ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Elector } from '../../../operator/kube/leader.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { eventually } from './eventually.ts';
import { FakeClock } from './fake-clock.ts';
import { LeaseScript } from './lease-script.ts';
import { ScriptedServer } from './scripted-server.ts';

interface Candidate {
  elector: Elector;
  clock: FakeClock;
  rest: Rest;
  stop: AbortController;
  running: Promise<void>;
  lost: number;
}

describe('Elector', () => {
  let server: ScriptedServer;
  let api: LeaseScript;
  let candidates: Candidate[];

  beforeEach(async () => {
    api = new LeaseScript();
    server = await ScriptedServer.start(api.script);
    candidates = [];
  });

  afterEach(async () => {
    api.faults.clear();
    for (const { stop } of candidates) stop.abort();
    await Promise.all(candidates.map(({ running }) => running));
    await Promise.all(candidates.map(({ rest }) => rest.close()));
    await server.stop();
  });

  function start(identity: string, wallSkewMs = 0): Candidate {
    const clock = new FakeClock();
    clock.wallSkewMs = wallSkewMs;
    const stop = new AbortController();
    const annotations = { 'lorikeet.dev/push': `http://${identity}` };
    const rest = new Rest({ credentials: server.credentials, clock });
    const candidate: Candidate = { clock, rest, stop, lost: 0 } as Candidate;
    candidate.elector = new Elector({
      rest,
      namespace: 'ns',
      name: 'lease',
      identity,
      annotations,
      onLost: () => {
        candidate.lost += 1;
      },
      log: silentLog,
      clock,
      random: () => 0,
    });
    candidate.running = candidate.elector.run(stop.signal);
    candidates.push(candidate);
    return candidate;
  }

  async function startLeader(identity: string): Promise<Candidate> {
    const candidate = start(identity);
    await candidate.elector.whenLeading();
    return candidate;
  }

  /** Lets the same time pass for all, in steps that let requests cross the loopback. */
  async function pass(seconds: number, ...whose: Candidate[]): Promise<void> {
    for (let second = 0; second < seconds; second += 1) {
      const seen = server.requests.length;
      await Promise.all(whose.map(({ clock }) => clock.advance(1_000)));
      await new Promise((resolve) => setTimeout(resolve, server.requests.length > seen ? 8 : 3));
    }
  }

  function leaders(): string[] {
    return candidates
      .filter(({ elector }) => elector.leading)
      .map(({ elector }) => elector.holder()?.identity ?? '');
  }

  it('takes a lease that nobody has, says who it is, and keeps it', async () => {
    const a = await startLeader('a');
    await pass(60, a);
    expect(a.elector.leading).not.toBeNull();
    expect(api.lease?.spec).toMatchObject({ holderIdentity: 'a', leaseDurationSeconds: 6 });
    expect(a.elector.holder()).toEqual({ identity: 'a', annotations: { 'lorikeet.dev/push': 'http://a' } });
    expect(api.lease?.spec.leaseTransitions).toBe(a.elector.leading?.term);
  });

  it('lets one of two lead, and the other know who', async () => {
    const a = await startLeader('a');
    const b = start('b');
    await pass(60, a, b);
    expect(leaders()).toEqual(['a']);
    expect(b.elector.holder()).toEqual({ identity: 'a', annotations: { 'lorikeet.dev/push': 'http://a' } });
    expect([a.lost, b.lost]).toEqual([0, 0]);
  });

  it('never lets two lead while both reach for a new lease at once', async () => {
    const all = ['a', 'b', 'c'].map((identity) => start(identity));
    await pass(20, ...all);
    expect(leaders()).toHaveLength(1);
  });

  it('succeeds a dead leader after the lease has run out, in a higher term', async () => {
    const a = await startLeader('a');
    const b = start('b');
    await pass(4, a, b);
    const term = a.elector.leading?.term ?? 0;
    await pass(5, b);
    expect(b.elector.leading).toBeNull();
    await pass(2, b);
    expect(b.elector.leading?.term).toBe(term + 1);
    expect(b.elector.holder()?.annotations).toEqual({ 'lorikeet.dev/push': 'http://b' });
  });

  it('does not lead any more at the very moment it thaws, and says so once', async () => {
    const a = await startLeader('a');
    const b = start('b');
    await pass(4, a, b);
    a.clock.freeze(30_000);
    await pass(20, b);
    expect(a.elector.leading).toBeNull();
    expect(a.lost).toBe(0);
    await pass(3, a, b);
    expect(a.lost).toBe(1);
    expect(leaders()).toEqual(['b']);
    expect(api.lease?.spec.holderIdentity).toBe('b');
    await a.running;
  });

  it('gives up by its own clock before another may take over when it cannot renew', async () => {
    const a = await startLeader('a');
    const b = start('b');
    await pass(4, a, b);
    api.faults.set('a', 'silence');
    let both = 0;
    for (let second = 0; second < 25; second += 1) {
      await pass(1, a, b);
      if (leaders().length > 1) both += 1;
    }
    expect([both, a.lost]).toEqual([0, 0]);
    expect(leaders()).toEqual(['b']);
    api.faults.clear();
    await pass(5, a, b);
    expect(a.lost).toBe(1);
    expect(leaders()).toEqual(['b']);
  });

  it('keeps leading through a few failed renewals', async () => {
    const a = await startLeader('a');
    api.faults.set('a', { status: 500 });
    await pass(4, a);
    expect(a.elector.leading).not.toBeNull();
    api.faults.clear();
    await pass(20, a);
    expect(a.elector.leading).not.toBeNull();
    expect(a.lost).toBe(0);
  });

  it('pauses while the API server is away, and leads on in the same term when nobody else did', async () => {
    const a = await startLeader('a');
    const term = a.elector.leading?.term;
    for (const identity of ['', 'a']) api.faults.set(identity, { status: 500 });
    await pass(40, a);
    expect(a.elector.leading).toBeNull();
    api.faults.clear();
    await pass(2, a);
    expect(a.elector.leading?.term).toBe(term);
    expect(a.lost).toBe(0);
  });

  it('leads on after a pause though the renewal that it did not hear of had arrived', async () => {
    const a = await startLeader('a');
    api.faults.set('a', { status: 500 });
    await pass(10, a);
    const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
    api.put({ metadata, spec: { ...spec, renewTime: 'later' } });
    api.faults.clear();
    await pass(2, a);
    expect(a.elector.leading).not.toBeNull();
  });

  it('counts the deadline from when a renewal was sent, not from when its reply came', async () => {
    const a = await startLeader('a');
    let reply: ServerResponse | null = null;
    api.faults.set('a', {
      stream: (response) => {
        reply = response;
      },
    });
    await a.clock.advance(1_000);
    await eventually(() => expect(reply).not.toBeNull());
    const sentAtMs = a.clock.monotonicMs();
    await pass(1, a);
    api.faults.set('a', { status: 500 });
    (reply as ServerResponse | null)?.end(JSON.stringify(api.lease));
    await pass(3, a);
    expect(a.elector.leading).not.toBeNull();
    a.clock.freeze(sentAtMs + 4_500 - a.clock.monotonicMs());
    expect(a.elector.leading).toBeNull();
  });

  it('renews while all other calls of the process are held back', async () => {
    const a = await startLeader('a');
    server.script = (request) =>
      request.path.includes('/leases')
        ? api.script(request)
        : { status: 429, headers: { 'retry-after': '60' } };
    await expect(a.rest.request({ method: 'GET', path: '/api/v1/pods' })).rejects.toMatchObject({
      status: 429,
    });
    await pass(20, a);
    expect(a.elector.leading).not.toBeNull();
  });

  it('renews over an annotation that somebody wrote', async () => {
    const a = await startLeader('a');
    const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
    api.put({ metadata: { ...metadata, annotations: { ...metadata.annotations, note: 'x' } }, spec });
    await pass(12, a);
    expect(a.elector.leading).not.toBeNull();
    expect(api.lease?.metadata.annotations).toMatchObject({ note: 'x', 'lorikeet.dev/push': 'http://a' });
  });

  const takenAway: Record<string, () => void> = {
    'another one holds the lease': () => {
      const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
      api.put({
        metadata,
        spec: { ...spec, holderIdentity: 'z', leaseTransitions: spec.leaseTransitions + 1 },
      });
    },
    'another one holds the lease, who does not count': () => {
      const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
      api.put({ metadata, spec: { ...spec, holderIdentity: 'z' } });
    },
    'a twin of the same identity holds the lease': () => {
      const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
      api.put({ metadata, spec: { ...spec, leaseTransitions: spec.leaseTransitions + 1 } });
    },
    'the lease was deleted': () => {
      api.lease = null;
    },
  };
  for (const [name, takeAway] of Object.entries(takenAway)) {
    it(`loses when ${name}`, async () => {
      const a = await startLeader('a');
      takeAway();
      await pass(3, a);
      await a.running;
      expect(a.lost).toBe(1);
      expect(a.elector.leading).toBeNull();
    });
  }

  it('takes the lease of an earlier process with its own identity at once, in a higher term', async () => {
    const a = await startLeader('a');
    const again = await startLeader('a');
    expect(again.clock.monotonicMs()).toBe(a.clock.monotonicMs());
    expect(again.elector.leading?.term).toBe((a.elector.leading?.term ?? 0) + 1);
    await pass(2, a);
    expect([a.lost, a.elector.leading]).toEqual([1, null]);
  });

  it('does not care how the clock of the machine is set', async () => {
    const a = await startLeader('a');
    const b = start('b');
    a.clock.wallSkewMs = -3_600_000;
    b.clock.wallSkewMs = 3_600_000;
    await pass(40, a, b);
    expect(leaders()).toEqual(['a']);
  });

  it('begins a lease that was deleted in a higher term than the one before', async () => {
    const a = await startLeader('a');
    const term = a.elector.leading?.term ?? 0;
    api.lease = null;
    const b = start('b', 60_000);
    await eventually(() => expect(b.elector.leading?.term).toBe(term + 60));
  });

  it('gives the lease back when it is told to stop, so that the next leads at once', async () => {
    const a = await startLeader('a');
    const b = start('b');
    await pass(4, a, b);
    a.stop.abort();
    await a.running;
    expect(api.lease?.spec.holderIdentity).toBe('');
    await pass(3, b);
    expect(b.elector.leading).not.toBeNull();
    expect(a.lost).toBe(0);
  });

  it('gives the lease back though a renewal arrived that it did not hear of', async () => {
    const a = await startLeader('a');
    const { metadata, spec } = api.lease as NonNullable<typeof api.lease>;
    api.put({ metadata, spec: { ...spec, renewTime: 'later' } });
    a.stop.abort();
    await a.running;
    expect(api.lease?.spec.holderIdentity).toBe('');
  });

  it('leaves the lease of another alone when it is told to stop', async () => {
    const a = await startLeader('a');
    takenAway['another one holds the lease']?.();
    a.stop.abort();
    await a.running;
    expect(api.lease?.spec.holderIdentity).toBe('z');
  });

  it('rejects whoever waits to lead when it ends before', async () => {
    await startLeader('a');
    const b = start('b');
    b.stop.abort(new Error('stopped'));
    await expect(b.elector.whenLeading()).rejects.toThrow('stopped');
  });
});
