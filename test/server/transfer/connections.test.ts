import { createServer, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keepRoom } from '../../../server/transfer/connections.ts';
import { eventually } from '../../support/eventually.ts';

const PATIENCE = { timeoutMs: 10_000, everyMs: 5 };
const GET = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

let server: Server;
let room: { isFull(): boolean };
let clients: Socket[];
/** Of requests that are held; others are answered at once. */
let held: ServerResponse[];
let hold: boolean;

beforeEach(async () => {
  clients = [];
  held = [];
  hold = false;
  server = createServer((_, response) => {
    if (hold) held.push(response);
    else response.end('ok');
  });
  room = keepRoom(server, { connectionsMax: 8, roomFor: 2 });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});
afterEach(() => {
  for (const client of clients) client.destroy();
  server.closeAllConnections();
  server.close();
});

async function open(text = ''): Promise<Socket & { received: string }> {
  const { port } = server.address() as AddressInfo;
  const socket = Object.assign(connect(port, '127.0.0.1').setEncoding('utf8'), { received: '' });
  socket.on('error', () => undefined);
  socket.on('data', (more) => {
    socket.received += more;
  });
  clients.push(socket);
  await new Promise<void>((done) => socket.once('connect', done));
  socket.write(text);
  return socket;
}

const isAnswered = (socket: { received: string }) =>
  eventually('it is answered', PATIENCE, () => socket.received.endsWith('ok') || undefined);

describe('connections that send nothing', () => {
  it('make room for others, those that came first before those that came last', async () => {
    const silent: Socket[] = [];
    for (let count = 0; count < 20; count += 1) silent.push(await open());
    await isAnswered(await open(GET));
    await eventually(
      'room is made',
      PATIENCE,
      () => silent.filter(({ closed }) => closed).length >= 15 || undefined,
    );
    expect(silent.map(({ closed }) => closed)).toEqual(silent.map((_, index) => index < 15));
  });

  it('after an answer count as such', async () => {
    const kept = await open(GET);
    await isAnswered(kept);
    for (let count = 0; count < 6; count += 1) await isAnswered(await open(GET));
    await eventually('the first is gone', PATIENCE, () => kept.closed || undefined);
  });
});

describe('connections with a request under way', () => {
  it('stay, and the places that are left say that all others are taken', async () => {
    hold = true;
    const busy: Socket[] = [];
    for (let count = 0; count < 6; count += 1) busy.push(await open(GET));
    await eventually('all have asked', PATIENCE, () => held.length === 6 || undefined);
    expect(room.isFull()).toBe(false);
    hold = false;
    await isAnswered(await open(GET));
    expect(room.isFull()).toBe(true);
    expect(busy.some(({ closed }) => closed)).toBe(false);
  });

  it('stay while one of several on a connection is', async () => {
    const pipelined = await open(GET);
    await isAnswered(pipelined);
    hold = true;
    pipelined.write(GET + GET);
    await eventually('both have come', PATIENCE, () => held.length === 2 || undefined);
    held[0]?.end('ok');
    await eventually(
      'one is answered',
      PATIENCE,
      () => pipelined.received.match(/ok/g)?.length === 2 || undefined,
    );
    hold = false;
    for (let count = 0; count < 12; count += 1) await isAnswered(await open(GET));
    expect(pipelined.closed).toBe(false);
  });
});
