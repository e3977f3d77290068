/** A web server of the files beside it, in the cluster of a demo: whole or in ranges. */
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';

const FILES = ['adapter_model.safetensors', 'adapter_config.json'];

createServer((request, response) => {
  const name = FILES.find((file) => request.url === `/${file}`);
  if (name === undefined) return response.writeHead(404).end();
  const path = join(import.meta.dirname, name);
  const { size } = statSync(path);
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  const start = Number(first ?? 0);
  const end = Math.min(last ? Number(last) : size - 1, size - 1);
  const headers = { 'accept-ranges': 'bytes', 'content-length': end - start + 1 };
  if (first === undefined) response.writeHead(200, headers);
  else response.writeHead(206, { ...headers, 'content-range': `bytes ${start}-${end}/${size}` });
  if (request.method === 'HEAD') return response.end();
  createReadStream(path, { start, end }).pipe(response);
}).listen(Number(process.argv[2]), process.env.POD_IP);
