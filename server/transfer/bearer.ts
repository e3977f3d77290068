import { createHash, timingSafeEqual } from 'node:crypto';

/** Whether the header carries this token; how long that takes says nothing of the token. */
export function isBearer(authorization: string | undefined, token: string): boolean {
  const [, given = ''] = /^Bearer ([\x21-\x7e]+)$/i.exec(authorization ?? '') ?? [];
  return timingSafeEqual(sha256(given), sha256(token));
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
