import { createHash } from 'node:crypto';
import type { Fence } from '../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../server/contract/digest.ts';
import { LorikeetError } from '../../server/contract/errors.ts';
import {
  type AdapterConfig,
  configFromHeaders,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import {
  headerLength,
  requireExactLength,
  type SafetensorsHeader,
} from '../../server/contract/format/safetensors.ts';
import { requireContentDigest } from '../../server/contract/headers.ts';
import { requireBodySize } from '../../server/transfer/limits.ts';
import type { PodOutcome, PushContext } from '../adapter/publish/publication.ts';
import type { Log } from '../kube/log.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolCopy } from '../spool/spool-copy.ts';
import { checkHeader, requireExpectedSha256, type Shape } from '../spool/verify.ts';
import type { Asked } from './asked.ts';
import type { BodyReader } from './body-reader.ts';
import type { BranchLimits } from './branch.ts';
import { FanOut } from './fan-out.ts';

export interface Received extends Shape {
  digest: string;
  config: unknown;
  bytes: number;
  staged: PodOutcome[];
  /** From the first byte to the last, and from there to the last pod's answer. */
  receiveMs: number;
  stageMs: number;
}

export interface Receiving {
  asked: Asked;
  context: PushContext;
  fence: Fence;
  spool: Spool;
  limits: BranchLimits;
  log: Log;
}

/**
 * Takes a body in and hands it to all pods and the spool at once. Whatever fails, fails before the last block has gone
 * out: no pod has the whole of a revision that is not right, and nothing that is current changes.
 */
export async function receive(reader: BodyReader, receiving: Receiving): Promise<Received> {
  const startedAt = performance.now();
  const head = await readHead(reader, receiving);
  const fanOut = startUploads(head, receiving);
  const copy = new SpoolCopy(receiving.spool, receiving.log);
  const hash = createHash('sha256');
  try {
    let held: Uint8Array = head.bytes;
    hash.update(held);
    for (let block = await reader.next(); block !== null; block = await reader.next()) {
      await Promise.all([fanOut.write(held), copy.write(held)]);
      held = block;
      hash.update(held);
      if (reader.receivedBytes > head.header.totalBytes) break;
    }
    requireExactLength(head.header, reader.receivedBytes);
    const tensorsSha256 = hash.digest('hex');
    requireDigest(tensorsSha256, receiving);
    const digest = revisionDigest(head.config.raw, tensorsSha256);
    const receivedAt = performance.now();
    const finished = fanOut.finish(held, digest, receiving.asked.timeoutMs);
    const [staged] = await Promise.all([finished, copy.write(held)]);
    await copy.commit(digest, { config: head.config.raw, step: receiving.asked.step, tensorsSha256 });
    return {
      ...head.shape,
      digest,
      config: head.config.raw,
      bytes: reader.receivedBytes,
      staged,
      receiveMs: receivedAt - startedAt,
      stageMs: performance.now() - receivedAt,
    };
  } catch (error) {
    fanOut.abort();
    await copy.abort();
    throw error;
  }
}

interface Head {
  header: SafetensorsHeader;
  config: AdapterConfig;
  shape: Shape;
  /** What had to be read for it: the header and the beginning of the data. */
  bytes: Uint8Array;
}

/** Reads no more than the header, and refuses by it what does not fit. */
async function readHead(reader: BodyReader, { asked, context }: Receiving): Promise<Head> {
  let bytes: Uint8Array = Buffer.alloc(0);
  const readUpTo = async (length: number) => {
    const parts = [bytes];
    let have = bytes.length;
    while (have < length) {
      const chunk = await reader.next();
      if (chunk === null) break;
      parts.push(chunk);
      have += chunk.length;
    }
    bytes = Buffer.concat(parts);
  };
  await readUpTo(8);
  const headerEnd = headerLength(bytes);
  await readUpTo(headerEnd);
  const { geometry, maxRank, maxBytes, adapter } = context;
  const configOf = (header: SafetensorsHeader) => configFrom(asked, context, header);
  const fit = { geometry, maxRank };
  const checked = checkHeader(bytes.subarray(0, headerEnd), configOf, fit, adapter.spec.verify);
  const { header, config, shape } = checked;
  requireBodySize(header.totalBytes, maxBytes);
  if (asked.declaredBytes !== null) requireExactLength(header, asked.declaredBytes);
  reader.expect(header.totalBytes);
  return { header, config, shape: shape as Shape, bytes };
}

function configFrom(asked: Asked, context: PushContext, { metadata }: SafetensorsHeader): AdapterConfig {
  const bytes = configFromHeaders(asked.config, metadata);
  if (bytes !== null) return parseAdapterConfig(bytes);
  if (context.config !== null) return parseAdapterConfig(Buffer.from(JSON.stringify(context.config)));
  throw new LorikeetError(
    'missing_config',
    'Expected adapter_config.json in X-Lora-Config or in __metadata__.adapter_config: there was no push before this one',
    { field: 'x-lora-config' },
  );
}

function startUploads({ config, header }: Head, { asked, context, fence, limits }: Receiving): FanOut {
  const { step, allow } = asked;
  return new FanOut(
    context.pods,
    (pod, body, signal) => {
      const options = { size: header.totalBytes, config: config.raw, step, fence, allow, signal };
      return pod.client.upload(context.servedName, body, options);
    },
    limits,
  );
}

function requireDigest(tensorsSha256: string, { asked, context }: Receiving): void {
  requireContentDigest(asked.sha256, tensorsSha256);
  requireExpectedSha256(tensorsSha256, context.adapter.spec.verify);
}
