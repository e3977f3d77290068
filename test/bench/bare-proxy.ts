import { once } from 'node:events';
import { createServer } from 'node:http';
import { Pool } from 'undici';
import { urlOf } from '../../server/transfer/tls-files.ts';

/**
 * Forked with the URL of an engine: passes requests on to it and its answers back, and does nothing else: the least that a proxy
 * in Node costs. Says where it listens.
 */
const engine = new Pool(process.argv[2] as string);
const server = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const { method, url, headers } = request;
  const answer = await engine.request({
    ...{ method: method ?? 'GET', path: url ?? '/', body: Buffer.concat(chunks) },
    headers: { 'content-type': headers['content-type'] },
  });
  response.writeHead(answer.statusCode, answer.headers);
  answer.body.pipe(response);
});
await once(server.listen(0, '127.0.0.1'), 'listening');
process.send?.(urlOf(server));
process.once('disconnect', () => process.exit());
