import { FreshFiles } from './fresh-files.ts';
import { type KeyPair, readKeyPair } from './tls-files.ts';

/** What a client shows to servers that ask who calls: its certificate and its key. */
export const KeyPairFiles = {
  read: (paths: { cert: string; key: string }): Promise<KeyPairFiles> =>
    FreshFiles.open([paths.cert, paths.key], () => readKeyPair(paths)),
};
export type KeyPairFiles = FreshFiles<KeyPair>;
