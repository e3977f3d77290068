import fastify, { type FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';
import { keepRoom } from '../../server/transfer/connections.ts';

export interface HealthOptions {
  registry: Registry;
  /** Null: ready. Otherwise what is missing. */
  notReady: () => string | null;
}

const HEADER_BYTES_MAX = 8 << 10;
const REQUEST_MS_MAX = 10_000;
const CONNECTIONS_MAX = 64;

/** Probes and metrics, on a port of their own. */
export function buildHealthApp({ registry, notReady }: HealthOptions): FastifyInstance {
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    requestTimeout: REQUEST_MS_MAX,
    connectionTimeout: REQUEST_MS_MAX,
    bodyLimit: 1024,
    http: {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: REQUEST_MS_MAX,
      connectionsCheckingInterval: 2_000,
    },
  });
  keepRoom(app.server, { connectionsMax: CONNECTIONS_MAX, roomFor: CONNECTIONS_MAX / 16 });
  app.get('/healthz', async () => 'ok\n');
  app.get('/readyz', async (_request, reply) => {
    const missing = notReady();
    return missing === null ? 'ok\n' : reply.code(503).send(`${missing}\n`);
  });
  app.get('/metrics', async (_request, reply) =>
    reply.type(registry.contentType).send(await registry.metrics()),
  );
  return app;
}
