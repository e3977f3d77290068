import { describe, expect, it } from 'vitest';
import { readAsked } from '../../../operator/push/asked.ts';
import {
  decodeConfig,
  readAllow,
  readConfig,
  readContentDigest,
  readContentLength,
  readFence,
  readStep,
  requireContentDigest,
  requireContentType,
  writeAllow,
  writeConfig,
  writeContent,
  writeFence,
  writeStep,
} from '../../../server/contract/headers.ts';
import { upload, useAdmin } from '../adapters/admin.ts';
import { refusalOf } from './refusal.ts';

const MAX = 999_999_999_999_999;
const admin = useAdmin();

describe('a header', () => {
  it('says to its reader what its writer was told', () => {
    for (const step of [null, 0, 1, MAX]) expect(readStep(writeStep(step))).toBe(step);
    for (const fence of [
      { term: 0, sequence: 0 },
      { term: MAX, sequence: MAX },
    ])
      expect(readFence(writeFence(fence))).toEqual(fence);
    for (const checks of [[], ['zero_effect']]) expect(readAllow(writeAllow(checks))).toEqual(checks);
    const config = { r: 8, alpha_pattern: { 'ä"': 1.5 }, target_modules: ['q_proj'] };
    expect(JSON.parse(decodeConfig(readConfig(writeConfig(config)) ?? '').toString())).toEqual(config);
    expect(readContentLength(writeContent('text/plain', 0))).toBe(0);
    expect(() => requireContentType(writeContent('text/plain', 1), ['text/plain'])).not.toThrow();
  });

  it.each([
    ['a fence without sequence', () => readFence({ 'x-lora-fence': '4' }), 'malformed_request'],
    ['a fence of 16 digits', () => readFence({ 'x-lora-fence': `1.${MAX + 1}` }), 'malformed_request'],
    ['an unknown waiver', () => readAllow({ 'x-lora-allow': 'zero_effect, all' }), 'malformed_request'],
    ['two steps', () => readStep({ 'x-lora-step': ['1', '2'] }), 'malformed_request'],
    [
      'compression',
      () => readContentLength({ 'transfer-encoding': 'gzip, chunked' }),
      'unsupported_encoding',
    ],
    ['no length', () => readContentLength({}), 'length_required'],
    ['two types', () => requireContentType({ 'content-type': ['a', 'b'] }, ['a']), 'unsupported_media_type'],
  ])('is refused: %s', (_what, read, code) => {
    expect(refusalOf(read).code).toBe(code);
  });

  it('that is a list may have empty elements', () => {
    expect(readAllow({ 'x-lora-allow': ', zero_effect,' })).toEqual(['zero_effect']);
    expect(readAllow({ 'x-lora-allow': '' })).toEqual([]);
  });

  it('content-digest is found among others, and holds for the body', () => {
    const base64 = Buffer.alloc(32, 1).toString('base64');
    const hex = '01'.repeat(32);
    for (const value of [`sha-256=:${base64}:`, `sha-512=:AA==:, sha-256=:${base64}:;a=1`]) {
      expect(readContentDigest({ 'content-digest': value })).toBe(hex);
    }
    expect(refusalOf(() => readContentDigest({ 'content-digest': `sha-256=:${base64}:x` })).code).toBe(
      'malformed_request',
    );
    expect(() => requireContentDigest(null, hex)).not.toThrow();
    expect(() => requireContentDigest(hex, hex)).not.toThrow();
    expect(refusalOf(() => requireContentDigest(hex, '00'.repeat(32))).code).toBe('digest_mismatch');
  });
});

describe('a step', () => {
  it.each([
    ['0', 0],
    ['007', 7],
    [String(MAX), MAX],
    [String(MAX + 1), null],
    [String(Number.MAX_SAFE_INTEGER), null],
    [String(Number.MAX_SAFE_INTEGER + 1), null],
    ['-1', null],
    ['+1', null],
    ['1e3', null],
    ['1.0', null],
    ['0x1', null],
    ['', null],
  ])('%j is the same to an operator as to a pod', async (text, step) => {
    const headers = { 'content-length': '1', 'x-lora-step': text };
    const asked = () => readAsked({ headers, headersDistinct: {} }, {}).step;
    const { call, registry } = await admin();
    const reply = await call('PUT', '/v1/adapters/a', upload(1, { 'x-lora-step': text }));
    if (step === null) {
      expect(refusalOf(asked)).toMatchObject({ code: 'malformed_request', field: 'x-lora-step' });
      expect(reply).toMatchObject({ status: 400, body: { error: { field: 'x-lora-step' } } });
    } else {
      expect(asked()).toBe(step);
      expect(reply.status).toBe(200);
      expect(registry.state().adapters[0]?.revisions[0]?.step).toBe(step);
      expect(readStep(writeStep(asked()))).toBe(step);
    }
  });
});
