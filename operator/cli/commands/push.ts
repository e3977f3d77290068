import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { DIGEST_PATTERN, HEADER, MEDIA_TYPE } from '../../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { writeAllow, writeConfig, writeStep } from '../../../server/contract/headers.ts';
import { type AdapterFiles, openAdapter } from '../adapter-files.ts';
import {
  type Command,
  ENDPOINT_FLAGS,
  type Invocation,
  KUBE_FLAGS,
  PLAIN_OUTPUT,
  toggle,
} from '../command.ts';
import { Endpoint } from '../endpoint.ts';
import { CommandFailure, Misuse } from '../failure.ts';
import type { Upload } from '../http.ts';
import { getAdapter } from '../objects.ts';
import { print } from '../output.ts';
import { Progress } from '../progress.ts';
import { Pushed, pushedText } from '../pushed.ts';
import { oneNamespace, type Session, withCluster } from '../session.ts';

const CHUNK_BYTES = 256 << 10;
/** Above it the operator takes no headers; a config in the file itself has no such limit. */
const CONFIG_HEADER_MAX = 24 << 10;
/** What the operator may take beyond its own deadline. */
const GRACE_MS = 15_000;
const TIMEOUT_MS_MAX = 600_000;

export const push: Command = {
  name: 'push',
  args: 'NAME DIR|FILE',
  arity: [2, 2],
  about: 'Pushes an adapter that PEFT saved into the pods, and prints its digest.',
  detail: `
DIR is what save_pretrained wrote: adapter_model.safetensors and adapter_config.json. FILE is a safetensors file;
its config is beside it, in its header, or named by --config. What is no adapter is refused before a byte is sent.
When it returns, every later request to any desired pod is answered by this revision or a newer one. Pushing the
same content again changes nothing, so a push whose answer was lost can be repeated.

The operator is called as a ServiceAccount, with a token that is made for it and good for nothing else: you need the
right to create serviceaccounts/token, and the account "update" on loraadapters/tensors (ClusterRole lorikeet-pusher).

Examples:
  kubectl lora push sql ./outputs/checkpoint-400 -n models --step 400
  kubectl lora push sql adapter_model.safetensors --account trainer
  kubectl lora push sql ./out -o json | jq -r .revision`,
  flags: {
    step: { value: 'N', default: null, help: "the trainer's step; it must be newer than all before" },
    config: { value: 'FILE', default: null, help: 'adapter_config.json, where it is elsewhere' },
    'if-match': {
      value: 'DIGEST',
      default: null,
      help: 'only over this revision; * is over any that is there',
    },
    'allow-zero-effect': toggle('also where every B is zero, as before training'),
    wait: { value: ['active', 'staged'], default: 'active', help: 'until pods serve it, or only hold it' },
    timeout: { value: 'TIME', default: '30s', help: 'for the pods, after the last byte; at most 10m' },
    ...PLAIN_OUTPUT,
    ...KUBE_FLAGS,
    ...ENDPOINT_FLAGS,
  },
  run: async (invocation) => {
    const [name = '', path = ''] = invocation.args;
    const asked = readAsked(invocation);
    const files = await openAdapter(path, invocation.flags.optional('config'));
    try {
      await withCluster(invocation, (session) => pushFiles(session, invocation, { name, files, asked }));
    } finally {
      await files.file.close();
    }
  },
};

interface Asked {
  step: number | null;
  ifMatch: string | null;
  allow: string[];
  wait: 'active' | 'staged';
  timeoutMs: number;
}

function readAsked({ flags }: Invocation): Asked {
  const ifMatch = flags.optional('if-match');
  if (ifMatch !== null && ifMatch !== '*' && !DIGEST_PATTERN.test(ifMatch)) {
    throw new Misuse(`--if-match is a whole digest (sha256:…) or *, not ${ifMatch}`);
  }
  const timeoutMs = flags.durationMs('timeout');
  if (timeoutMs < 1 || timeoutMs > TIMEOUT_MS_MAX) throw new Misuse('--timeout is 1ms to 10m');
  return {
    step: flags.integer('step'),
    ifMatch,
    allow: flags.isOn('allow-zero-effect') ? ['zero_effect'] : [],
    wait: flags.text('wait') === 'staged' ? 'staged' : 'active',
    timeoutMs,
  };
}

async function pushFiles(
  session: Session,
  invocation: Invocation,
  { name, files, asked }: { name: string; files: AdapterFiles; asked: Asked },
): Promise<void> {
  const { io, flags } = invocation;
  const adapter = await getAdapter(session, oneNamespace(session), name);
  if (adapter.spec.source.push === undefined) {
    throw new CommandFailure(`LoraAdapter ${name} does not take pushes: its tensors come from elsewhere`, {
      todo: 'Only one with spec.source.push does; the kind of a source cannot be changed.',
    });
  }
  const endpoint = await Endpoint.open(session, adapter, flags);
  const sha256 = await sha256Of(files.file, files.bytes);
  const progress = new Progress(io, {
    what: `pushing ${name}`,
    total: files.bytes,
    nowMs: () => performance.now(),
  });
  const { status, body } = await endpoint
    .call({
      method: 'PUT',
      path: `/revisions?wait=${asked.wait}&timeout=${asked.timeoutMs}ms`,
      headers: headersOf(files, asked, sha256),
      body: uploadOf(files, (bytes) => progress.add(bytes)),
      timeoutMs: asked.timeoutMs + GRACE_MS,
      reply: Pushed,
    })
    .finally(() => progress.end());
  requireDigest(files, sha256, body.revision);
  print(invocation, body, () => {
    const what = body.noop ? 'unchanged' : 'pushed';
    return `loraadapter.lorikeet.dev/${name} ${what}: ${body.revision}\n${pushedText(body, asked.wait)}`;
  });
  if (status === 202) {
    io.err(
      `It is accepted, and follows on the other pods: kubectl lora rollout status ${name} -n ${session.namespace}\n`,
    );
  }
}

async function sha256Of(file: FileHandle, bytes: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of chunksOf(file, bytes)) hash.update(chunk);
  return hash.digest('hex');
}

async function* chunksOf(file: FileHandle, bytes: number): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < bytes; ) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, bytes - at));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
    if (bytesRead === 0) throw new CommandFailure('the file was cut short while it was read');
    yield chunk.subarray(0, bytesRead);
    at += bytesRead;
  }
}

function uploadOf({ file, bytes }: AdapterFiles, onSent: (bytes: number) => void): Upload {
  return { bytes, chunks: () => chunksOf(file, bytes), onSent };
}

function headersOf(
  { config, isConfigInside }: AdapterFiles,
  asked: Asked,
  sha256: string,
): Record<string, string> {
  const written = config === null || isConfigInside ? null : writeConfig(config.raw);
  if (written !== null && written[HEADER.config].length > CONFIG_HEADER_MAX) {
    throw new CommandFailure('adapter_config.json is too large to be sent beside the tensors', {
      todo: 'Put it into the file: save_file(tensors, path, metadata={"adapter_config": json.dumps(config)}).',
    });
  }
  return {
    'content-type': MEDIA_TYPE,
    'content-digest': `sha-256=:${Buffer.from(sha256, 'hex').toString('base64')}:`,
    ...written,
    ...writeStep(asked.step),
    ...writeAllow(asked.allow),
    ...(asked.ifMatch !== null && { 'if-match': asked.ifMatch === '*' ? '*' : `"${asked.ifMatch}"` }),
  };
}

/** Without a config of our own, the operator took that of the push before. */
function requireDigest({ config }: AdapterFiles, sha256: string, revision: string): void {
  if (config === null) return;
  const expected = revisionDigest(config.raw, sha256);
  if (revision === expected) return;
  throw new CommandFailure(`the operator took ${revision}, and not what was sent (${expected})`);
}
