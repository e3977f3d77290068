import { HEADER } from '../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../server/contract/digest.ts';
import { LorikeetError } from '../../server/contract/errors.ts';
import {
  type AdapterConfig,
  configFromHeaders,
  parseAdapterConfig,
} from '../../server/contract/format/adapter-config.ts';
import type { SafetensorsHeader } from '../../server/contract/format/safetensors.ts';
import { requireContentDigest } from '../../server/contract/headers.ts';
import type { HashThread, RunningHash } from '../../server/transfer/hash-thread.ts';
import { TensorsReader } from '../../server/transfer/tensors-reader.ts';
import type { PodOutcome, PushContext } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolCopy } from '../spool/spool-copy.ts';
import { checkHeader, requireExpectedSha256, type Shape } from '../spool/verify.ts';
import type { Asked } from './asked.ts';
import type { BodyReader } from './body-reader.ts';
import type { Upload } from './branch.ts';
import { FanOut, type FanOutLimits, requireHope } from './fan-out.ts';
import { sendAgain } from './send-again.ts';

export interface ReceivedPush extends Shape {
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
  spool: Spool;
  hashing: HashThread;
  limits: FanOutLimits;
  clock: Clock;
  log: Log;
}

/**
 * Takes a body in and hands it to all pods and the spool at once. Whatever fails, fails before the last block has gone
 * out: no pod has the whole of a revision that is not right, and nothing that is current changes.
 */
export async function receive(body: BodyReader, receiving: Receiving): Promise<ReceivedPush> {
  const { asked, spool, hashing, clock, log } = receiving;
  const startedAt = clock.monotonicMs();
  const reader = tensorsReader(receiving);
  let held = await readHead(body, reader);
  const head = reader.accepted as Head;
  body.expect(head.header.totalBytes);
  const hash = hashing.begin(head.header.totalBytes);
  const upload = uploadOf(head, receiving);
  const fanOut = new FanOut(receiving.context.pods, upload, receiving.limits, clock);
  const copy = new SpoolCopy(spool, log);
  try {
    hashCopy(hash, held);
    for (let block = await body.next(); block !== null; block = await body.next()) {
      reader.push(block);
      hashCopy(hash, block);
      await Promise.all([fanOut.write(held), copy.write(held)]);
      if (!fanOut.isLive) requireHope(await fanOut.settled());
      held = block;
    }
    reader.finish();
    const tensorsSha256 = await hash.digest();
    requireDigest(tensorsSha256, receiving);
    const digest = revisionDigest(head.config.raw, tensorsSha256);
    const receivedAt = clock.monotonicMs();
    const finished = fanOut.finish(held, digest, asked.timeoutMs);
    const [first] = await Promise.all([finished, copy.write(held)]);
    requireHope(first);
    await copy.commit(digest, { config: head.config.raw, step: asked.step, tensorsSha256 });
    const untilMs = receivedAt + asked.timeoutMs;
    const staged = await sendAgain(first, { digest, upload, untilMs, ...receiving });
    return {
      ...head.shape,
      digest,
      config: head.config.raw,
      bytes: body.receivedBytes,
      staged,
      receiveMs: receivedAt - startedAt,
      stageMs: clock.monotonicMs() - receivedAt,
    };
  } catch (error) {
    hash.abandon();
    fanOut.abort();
    await copy.abort();
    throw error;
  }
}

/** The pods and the spool read the block too: the thread has a copy. */
function hashCopy(hash: RunningHash, block: Uint8Array): void {
  hash.take(new Uint8Array(block));
}

interface Head {
  header: SafetensorsHeader;
  config: AdapterConfig;
  shape: Shape;
}

function tensorsReader({ asked, context }: Receiving): TensorsReader<Head> {
  const { geometry, maxRank, maxBytes, adapter } = context;
  const accept = (header: SafetensorsHeader) => {
    const config = configFrom(asked, context, header);
    const shape = checkHeader(header, config, { geometry, maxRank }, adapter.spec.verify);
    return { header, config, shape: shape as Shape };
  };
  return new TensorsReader({ maxBytes, declaredBytes: asked.declaredBytes, accept });
}

/** Reads no more than the header and what came with it, and refuses by it what does not fit. */
async function readHead(body: BodyReader, reader: TensorsReader<Head>): Promise<Uint8Array> {
  let bytes: Uint8Array | null = null;
  while (bytes === null) {
    const chunk = await body.next();
    // Without a whole header, `finish` throws.
    if (chunk === null) reader.finish();
    else bytes = reader.push(chunk);
  }
  return bytes;
}

function configFrom(asked: Asked, context: PushContext, { metadata }: SafetensorsHeader): AdapterConfig {
  const bytes = configFromHeaders(asked.config, metadata);
  if (bytes !== null) return parseAdapterConfig(bytes);
  if (context.config !== null) return parseAdapterConfig(Buffer.from(JSON.stringify(context.config)));
  throw new LorikeetError(
    'missing_config',
    'Expected adapter_config.json in X-Lora-Config or in __metadata__.adapter_config: there was no push before this one',
    { field: HEADER.config },
  );
}

function uploadOf({ config, header }: Head, { asked, context }: Receiving): Upload {
  const { step, allow } = asked;
  return (pod, body, { relay, signal }) => {
    const options = {
      size: header.totalBytes,
      config: config.raw,
      step,
      fence: context.fence,
      allow,
      relay,
      signal,
    };
    return pod.client.upload(context.servedName, body, options);
  };
}

function requireDigest(tensorsSha256: string, { asked, context }: Receiving): void {
  requireContentDigest(asked.sha256, tensorsSha256);
  requireExpectedSha256(tensorsSha256, context.adapter.spec.verify);
}
