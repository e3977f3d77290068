import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HEADER } from '../../server/contract/adapter-api.ts';
import { decodeConfig } from '../../server/contract/headers.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { isApiError } from '../kube/rest.ts';
import { type AdapterFiles, openAdapter } from './adapter-files.ts';
import { CommandFailure } from './failure.ts';
import { exchange } from './http.ts';
import { type PodObject, podsOf } from './objects.ts';
import { type AdminAccess, adminAccess, adminTarget } from './pods.ts';
import type { Session } from './session.ts';

const ANSWER_MS = 30_000;
/** As large as any adapter that a pod takes. */
const BYTES_MAX = 16 * 2 ** 30;

/** Revisions that pods hold, brought into files of our own until they are removed. */
export class FetchedRevisions {
  readonly #session: Session;
  readonly #pool: ServerPool;
  #access: AdminAccess | null = null;
  #dir: string | null = null;

  constructor(session: Session, pool: ServerPool) {
    this.#session = session;
    this.#pool = pool;
  }

  async open(servedName: string, digest: string): Promise<AdapterFiles> {
    this.#access ??= await adminAccess(this.#session, this.#pool).catch((error: unknown) => {
      throw isApiError(error, 403) ? this.#notAllowed(error) : error;
    });
    const path = `/lora/v1/adapters/${encodeURIComponent(servedName)}/revisions/${encodeURIComponent(digest)}`;
    for (const pod of await podsOf(this.#session, this.#pool)) {
      const files = await this.#fetch(pod, path, this.#access);
      if (files !== null) return files;
    }
    throw new CommandFailure(`no pod has the bytes of ${digest} any more`, {
      todo: 'Name the folder that it was pushed from instead.',
    });
  }

  async remove(): Promise<void> {
    if (this.#dir !== null) await rm(this.#dir, { recursive: true, force: true });
  }

  /** Null: the pod does not have it. */
  async #fetch(pod: PodObject, path: string, access: AdminAccess): Promise<AdapterFiles | null> {
    const headers = { authorization: `Bearer ${access.token}` };
    const target = adminTarget(this.#session, pod, access);
    const { reply, done } = await exchange(target, { method: 'GET', path, headers, timeoutMs: ANSWER_MS });
    try {
      if (reply.statusCode === 404) return null;
      if (reply.statusCode !== 200) throw new CommandFailure(`${target.told} answers ${reply.statusCode}`);
      this.#dir ??= await mkdtemp(join(tmpdir(), 'kubectl-lora-'));
      const folder = await mkdtemp(join(this.#dir, 'revision-'));
      const config = reply.headers[HEADER.config];
      if (typeof config === 'string')
        await writeWhole(join(folder, 'adapter_config.json'), [decodeConfig(config)]);
      await writeWhole(join(folder, 'adapter_model.safetensors'), reply as AsyncIterable<Buffer>);
      return await openAdapter(folder, null);
    } finally {
      done();
    }
  }

  #notAllowed(cause: unknown): CommandFailure {
    const { namespace } = this.#pool.metadata;
    const { name } = this.#pool.spec.admin.auth.tokenSecretRef;
    return new CommandFailure(
      `you may not read the bytes of pods: that takes the Secret ${namespace}/${name}`,
      {
        todo: 'Name the folders that the revisions were pushed from: kubectl lora diff DIR1 DIR2.',
        cause,
      },
    );
  }
}

async function writeWhole(path: string, chunks: AsyncIterable<Buffer> | Iterable<Buffer>): Promise<void> {
  const file: FileHandle = await open(path, 'wx', 0o600);
  let bytes = 0;
  try {
    for await (const chunk of chunks) {
      bytes += chunk.length;
      if (bytes > BYTES_MAX) throw new CommandFailure(`a revision of more than ${BYTES_MAX} bytes`);
      await file.write(chunk);
    }
  } finally {
    await file.close();
  }
}
