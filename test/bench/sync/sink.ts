import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A server that drops what it gets, in a process of its own as any other; it prints its URL. */
const sink = createServer((request, response) => {
  request.on('end', () => response.end()).resume();
});
sink.listen(0, '127.0.0.1', () => {
  process.stdout.write(`http://127.0.0.1:${(sink.address() as AddressInfo).port}/\n`);
});
