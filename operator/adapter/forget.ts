import type { AdapterDeps } from './deps.ts';

/** The object is gone: nothing of it stays in this process. */
export function forget({ records, spool }: Pick<AdapterDeps, 'records' | 'spool'>, key: string): void {
  const record = records.forget(key);
  if (record?.desired) spool.unpin(record.desired.digest, record.uid);
}
