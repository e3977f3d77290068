import { readFile } from 'node:fs/promises';
import { FreshFiles } from './fresh-files.ts';
import { requireCertificates } from './tls-files.ts';

/** Whom a client trusts. */
export const CaFile = {
  read: (path: string): Promise<CaFile> => FreshFiles.open([path], () => readPem(path)),
};
export type CaFile = FreshFiles<string>;

async function readPem(path: string): Promise<string> {
  const pem = await readFile(path, 'utf8');
  requireCertificates(pem, path);
  return pem;
}
