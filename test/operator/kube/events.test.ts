import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EventRecorder } from '../../../operator/kube/events.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { FakeClock } from './fake-clock.ts';
import { pod } from './pods-script.ts';
import { ScriptedServer } from './scripted-server.ts';

describe('EventRecorder', () => {
  let server: ScriptedServer;
  let rest: Rest;
  let clock: FakeClock;
  let recorder: EventRecorder;
  let dropped: number;

  beforeEach(async () => {
    server = await ScriptedServer.start(() => ({ status: 201 }));
    clock = new FakeClock();
    dropped = 0;
    rest = new Rest({ credentials: server.credentials, clock, perSecondMax: 10_000, burst: 10_000 });
    recorder = new EventRecorder({
      rest,
      component: 'lorikeet-operator',
      instance: 'pod-0',
      log: silentLog,
      onDrop: () => {
        dropped += 1;
      },
      clock,
    });
  });

  afterEach(async () => {
    await rest.close();
    await server.stop();
  });

  const sent = () =>
    server.requests.map(({ method, body }) => `${method} ${body.count} ${body.message ?? ''}`.trim());

  it('is about its object, so that kubectl describe finds it', async () => {
    recorder.event(pod('a'), 'Warning', 'PodsFailed', 'two pods refused');
    await recorder.flush();
    expect(server.requests[0]).toMatchObject({ method: 'POST', path: '/api/v1/namespaces/ns/events' });
    expect(server.requests[0]?.body).toMatchObject({
      involvedObject: { kind: 'Pod', name: 'a', namespace: 'ns', uid: 'uid-a' },
      type: 'Warning',
      reason: 'PodsFailed',
      message: 'two pods refused',
      count: 1,
      reportingComponent: 'lorikeet-operator',
    });
  });

  it('counts the same event up, and makes a new one after ten quiet minutes', async () => {
    for (let times = 0; times < 3; times += 1) recorder.event(pod('a'), 'Normal', 'Ready', 'x');
    await recorder.flush();
    await clock.advance(601_000);
    recorder.event(pod('a'), 'Normal', 'Ready', 'x');
    await recorder.flush();
    expect(sent()).toEqual(['POST 1 x', 'PATCH 2', 'PATCH 3', 'POST 1 x']);
    const { name } = server.requests[0]?.body.metadata ?? {};
    expect(server.requests[1]?.path).toBe(`/api/v1/namespaces/ns/events/${name}`);
  });

  it('drops what one object says too often, and lets the others speak', async () => {
    for (let times = 0; times < 30; times += 1)
      recorder.event(pod('a'), 'Normal', 'Ready', `message ${times}`);
    recorder.event(pod('b'), 'Normal', 'Ready', 'b');
    await recorder.flush();
    expect(server.requests).toHaveLength(11);
    expect(dropped).toBe(20);
    await clock.advance(60_000);
    recorder.event(pod('a'), 'Normal', 'Ready', 'later');
    await recorder.flush();
    expect(sent().at(-1)).toBe('POST 1 later');
  });

  it('never lets more wait than it can hold', async () => {
    for (let times = 0; times < 1_000; times += 1) recorder.event(pod(`p${times}`), 'Normal', 'Ready', 'x');
    await recorder.flush();
    expect(server.requests.length).toBeLessThanOrEqual(257);
    expect(server.requests.length + dropped).toBe(1_000);
  });

  it('goes on after a failure', async () => {
    server.script = () => ({ status: 403 });
    recorder.event(pod('a'), 'Normal', 'Ready', 'lost');
    await recorder.flush();
    server.script = () => ({ status: 201 });
    recorder.event(pod('a'), 'Normal', 'Ready', 'kept');
    await recorder.flush();
    expect(sent()).toEqual(['POST 1 lost', 'POST 1 kept']);
  });
});
