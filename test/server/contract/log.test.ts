import { describe, expect, it } from 'vitest';
import { createLog } from '../../../server/contract/log.ts';

describe('log', () => {
  it('writes readable lines without secrets', () => {
    const lines: string[] = [];
    const log = createLog('info', { write: (line) => void lines.push(line) });
    const headers = { authorization: 'Bearer s3cret', cookie: 's3cret' };
    log.info({ headers, req: { headers }, call: { headers }, token: 's3cret', adapter: 'sql' }, 'pushed');
    log.debug('not at this level');
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain('s3cret');
    expect(JSON.parse(lines[0] as string)).toMatchObject({ level: 'info', msg: 'pushed', adapter: 'sql' });
  });
});
