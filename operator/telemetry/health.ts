import fastify, { type FastifyInstance } from 'fastify';
import type { Registry } from 'prom-client';

export interface HealthOptions {
  registry: Registry;
  /** Null: ready. Otherwise what is missing. */
  notReady: () => string | null;
}

/** Probes and metrics, on a port of their own. */
export function buildHealthApp({ registry, notReady }: HealthOptions): FastifyInstance {
  const app = fastify({ logger: false, requestTimeout: 10_000, connectionTimeout: 10_000, bodyLimit: 1024 });
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
