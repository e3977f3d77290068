import type { FastifyInstance } from 'fastify';
import { answerTrace, inTrace, readTrace, type Trace } from '../contract/trace.ts';

declare module 'fastify' {
  interface FastifyRequest {
    trace: Trace;
  }
}

/** Every request of the app is handled in the name of its trace, and its answer says which. To be called before other hooks are added. */
export function followTraces(app: FastifyInstance): void {
  app.decorateRequest('trace');
  app.addHook('onRequest', (request, reply, done) => {
    request.trace = readTrace(request.headers);
    void reply.headers(answerTrace(request.trace));
    inTrace(request.trace, done);
  });
  // Whoever reads a body hears of its end from the socket, which knows no trace.
  app.addHook('preValidation', (request, _reply, done) => inTrace(request.trace, done));
}
