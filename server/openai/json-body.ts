import type { FastifyInstance } from 'fastify';

/**
 * Reads JSON bodies as fastify does, but keeps all bits of a seed: clients send up to 2^63 - 1, of which JSON.parse
 * keeps the first 53. Such a seed comes as a bigint.
 */
export function addJsonParser(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, text, done) => {
    parse(request, text, (error, body) =>
      done(error, error === null ? withWholeSeed(body, text) : undefined),
    );
  });
}

function withWholeSeed(body: unknown, text: string): unknown {
  if (typeof body !== 'object' || body === null || !('seed' in body)) return body;
  const { seed } = body;
  if (!Number.isInteger(seed) || Number.isSafeInteger(seed)) return body;
  const whole = [...text.matchAll(/"seed"\s*:\s*(-?\d{16,20})(?![\d.eE])/g)]
    .map(([, digits = '']) => BigInt(digits))
    .findLast((written) => Number(written) === seed);
  return whole === undefined ? body : { ...body, seed: whole };
}
