import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { eventually } from '../support/eventually.ts';
import { toolPath } from '../support/tools.ts';
import { freePort } from './free-port.ts';
import { type RunningProcess, startProcess } from './process.ts';

export interface ObjectStore {
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Writes an object, into a versioned bucket that is made where it is missing; returns the version's id. */
  put(bucket: string, key: string, bytes: Uint8Array): Promise<string>;
  stop(): Promise<void>;
}

const REGION = 'us-east-1';
const START_TIMEOUT_MS = 15_000;
const START_ATTEMPTS_MAX = 3;
const STOP_GRACE_MS = 2_000;

/** A real S3 server, versitygw, on a folder of its own. */
export async function startObjectStore(host = '127.0.0.1'): Promise<ObjectStore> {
  const command = toolPath('versitygw');
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-object-store-'));
  const data = join(dir, 'data');
  const versions = join(dir, 'versions');
  await Promise.all([mkdir(data), mkdir(versions)]);
  const keys = {
    accessKeyId: randomBytes(8).toString('hex'),
    secretAccessKey: randomBytes(16).toString('hex'),
  };
  const env = { ...process.env, ROOT_ACCESS_KEY: keys.accessKeyId, ROOT_SECRET_KEY: keys.secretAccessKey };
  for (let attempt = 1; ; attempt++) {
    const address = `${host}:${await freePort(host)}`;
    const args = ['--port', address, '--region', REGION, '--versioning-dir', versions, data];
    const server = await startProcess({ command, args, env, logFile: join(dir, 'versitygw.log') });
    if (await listens(`http://${address}`, server))
      return new Store({ server, dir, endpoint: `http://${address}`, ...keys });
    if (attempt === START_ATTEMPTS_MAX) {
      const tail = server.logTail();
      await rm(dir, { recursive: true, force: true });
      throw new Error(`versitygw does not start:\n${tail}`);
    }
  }
}

async function listens(endpoint: string, server: RunningProcess): Promise<boolean> {
  return await eventually(`${endpoint} answers`, { timeoutMs: START_TIMEOUT_MS, everyMs: 50 }, async () => {
    if (server.exit !== null) return false;
    await fetch(endpoint);
    return true;
  });
}

interface StoreParts {
  server: RunningProcess;
  dir: string;
  endpoint: string;
  accessKeyId: string;
  secretAccessKey: string;
}

class Store implements ObjectStore {
  readonly endpoint: string;
  readonly region = REGION;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly #server: RunningProcess;
  readonly #dir: string;
  readonly #client: S3Client;
  readonly #buckets = new Map<string, Promise<void>>();

  constructor({ server, dir, endpoint, accessKeyId, secretAccessKey }: StoreParts) {
    this.#server = server;
    this.#dir = dir;
    this.endpoint = endpoint;
    this.accessKeyId = accessKeyId;
    this.secretAccessKey = secretAccessKey;
    const credentials = { accessKeyId, secretAccessKey };
    this.#client = new S3Client({ endpoint, region: REGION, credentials, forcePathStyle: true });
  }

  async put(bucket: string, key: string, bytes: Uint8Array): Promise<string> {
    const made = this.#buckets.get(bucket) ?? this.#makeBucket(bucket);
    this.#buckets.set(bucket, made);
    await made;
    const { VersionId } = await this.#client.send(
      new PutObjectCommand({ Bucket: bucket, Key: key, Body: bytes }),
    );
    if (VersionId === undefined) throw new Error(`bucket ${bucket} gives no version ids`);
    return VersionId;
  }

  async #makeBucket(bucket: string): Promise<void> {
    await this.#client.send(new CreateBucketCommand({ Bucket: bucket }));
    const VersioningConfiguration = { Status: 'Enabled' } as const;
    await this.#client.send(new PutBucketVersioningCommand({ Bucket: bucket, VersioningConfiguration }));
  }

  async stop(): Promise<void> {
    this.#client.destroy();
    await this.#server.stop(STOP_GRACE_MS);
    await rm(this.#dir, { recursive: true, force: true });
  }
}
