import { stat } from 'node:fs/promises';
import { type LoraAdapter, type RevisionRecord, servedNameOf, shortDigest } from '../../api/lora-adapter.ts';
import { type AdapterFiles, openAdapter } from '../adapter-files.ts';
import { type Command, type Invocation, KUBE_FLAGS, OUTPUT } from '../command.ts';
import { byModule, compareAdapters, type ModuleDiff, together } from '../compare.ts';
import { CommandFailure } from '../failure.ts';
import { FetchedRevisions } from '../fetched.ts';
import { getAdapter, poolOf } from '../objects.ts';
import { print } from '../output.ts';
import { findRevision } from '../revision.ts';
import { oneNamespace, type Session, withCluster } from '../session.ts';
import { facts, table } from '../table.ts';
import { roughly, sizeText } from '../words.ts';

export const diff: Command = {
  name: 'diff',
  args: '[NAME] REV1 REV2',
  arity: [2, 3],
  about: 'Compares two revisions: modules, ranks, and how far their weights are apart.',
  detail: `
Two arguments are two folders (or safetensors files), and no cluster is asked. Three are an adapter and two of its
revisions, by the first digits of a digest or as step-N; either may be a folder too.
NORM is that of what the adapter adds to the weights, scale·B·A (Frobenius); CHANGE is the norm of the difference, as
a share of the first one's. -o wide shows each layer.

The bytes of a revision come from a pod that holds it, through a port-forward, with the admin token of the pool: you
need to read its Secret. Without that only what status says is compared.

Examples:
  kubectl lora diff sql step-400 step-500 -n models
  kubectl lora diff sql 9e0ec293 ./outputs/checkpoint-600
  kubectl lora diff ./checkpoint-400 ./checkpoint-500 -o wide`,
  flags: { ...OUTPUT, ...KUBE_FLAGS },
  run: async (invocation) => {
    const { args } = invocation;
    if (args.length === 2) return await diffFolders(invocation, args as [string, string]);
    await withCluster(invocation, (session) =>
      diffRevisions(session, invocation, args as [string, string, string]),
    );
  },
};

async function diffFolders(invocation: Invocation, [first, second]: [string, string]): Promise<void> {
  for (const path of [first, second]) {
    if (await isPath(path)) continue;
    const todo = 'Two arguments are two folders. Of an adapter: kubectl lora diff NAME REV1 REV2';
    throw new CommandFailure(`there is no file or folder ${path}`, { todo });
  }
  const files: AdapterFiles[] = [];
  try {
    files.push(await openAdapter(first, null));
    files.push(await openAdapter(second, null));
    await show(invocation, [named(first, files[0]), named(second, files[1])]);
  } finally {
    for (const { file } of files) await file.close();
  }
}

interface Side {
  name: string;
  digest: string | null;
  step: number | null;
  bytes: number;
  files: AdapterFiles | null;
  /** Of status, where no files are at hand. */
  record: RevisionRecord | null;
}

function named(name: string, files: AdapterFiles | undefined): Side {
  return { name, digest: null, step: null, bytes: files?.bytes ?? 0, files: files ?? null, record: null };
}

async function diffRevisions(
  session: Session,
  invocation: Invocation,
  [name, ...texts]: [string, string, string],
): Promise<void> {
  const adapter = await getAdapter(session, oneNamespace(session), name);
  const pool = await poolOf(session, adapter);
  const fetched = pool === null ? null : new FetchedRevisions(session, pool);
  const sides: Side[] = [];
  try {
    for (const text of texts) sides.push(await sideOf(adapter, text));
    const missing = await fill(sides, adapter, fetched);
    await show(invocation, sides as [Side, Side]);
    if (missing !== null) {
      invocation.io.err(`\nWeights are not compared: ${missing.message}.\n${missing.todo ?? ''}\n`);
    }
  } finally {
    for (const { files } of sides) await files?.file.close();
    await fetched?.remove();
  }
}

async function sideOf(adapter: LoraAdapter, text: string): Promise<Side> {
  // A revision before a file: a folder that is named like one can be written ./so.
  try {
    const record = findRevision(adapter, text);
    const { digest, step, bytes } = record;
    return { name: shortDigest(digest), digest, step, bytes, files: null, record };
  } catch (error) {
    if (!(error instanceof CommandFailure) || !(await isPath(text))) throw error;
    return named(text, await openAdapter(text, null));
  }
}

/** Brings what pods hold; what stands in the way, where something does. */
async function fill(
  sides: Side[],
  adapter: LoraAdapter,
  fetched: FetchedRevisions | null,
): Promise<CommandFailure | null> {
  const servedName = adapter.status?.servedName ?? servedNameOf(adapter);
  for (const side of sides) {
    if (side.files !== null || side.digest === null) continue;
    if (fetched === null) return new CommandFailure(`you may not see the pool ${adapter.spec.poolRef.name}`);
    try {
      side.files = await fetched.open(servedName, side.digest);
    } catch (error) {
      if (error instanceof CommandFailure) return error;
      throw error;
    }
  }
  return null;
}

async function isPath(text: string): Promise<boolean> {
  return (await stat(text).catch(() => null)) !== null;
}

async function show(invocation: Invocation, [one, two]: [Side, Side]): Promise<void> {
  const modules =
    one.files === null || two.files === null ? null : await compareAdapters(one.files, two.files);
  const told = ({ name, digest, step, bytes, record }: Side) => {
    const known = record === null ? {} : { rank: record.rank, targetModules: record.targetModules };
    return { name, digest, step, bytes, ...known };
  };
  print(invocation, { one: told(one), two: told(two), modules }, (isWide) => {
    const head = facts([
      ['One', sideText(one)],
      ['Two', sideText(two)],
    ]);
    return `${head}\n${modules === null ? recordsTable(one, two) : diffTable(modules, isWide)}`;
  });
}

function sideText({ name, step, bytes }: Side): string {
  return `${name}${step === null ? '' : `, step ${step}`}, ${sizeText(bytes)}`;
}

/** What status tells of both. */
function recordsTable(one: Side, two: Side): string {
  const modulesOf = ({ record }: Side) => new Set(record?.targetModules ?? []);
  const [first, second] = [modulesOf(one), modulesOf(two)];
  const rank = ({ record }: Side) => (record === null ? '-' : String(record.rank));
  const rows = [...new Set([...first, ...second])]
    .sort()
    .map((module) => [module, first.has(module) ? 'yes' : 'no', second.has(module) ? 'yes' : 'no']);
  return table(['MODULE', 'ONE', 'TWO'], [...rows, ['largest rank', rank(one), rank(two)]]);
}

export function diffTable(modules: readonly ModuleDiff[], isWide: boolean): string {
  const groups = byModule(modules);
  const all = together('all', modules);
  const headers = ['MODULE', 'LAYERS', 'RANK', 'NORM ONE', 'NORM TWO', 'CHANGE'];
  const rows = [...groups, all].map((group) => [
    ...[group.module, String(group.layers), changed(ranksText(group.ranks.one), ranksText(group.ranks.two))],
    ...[roughly(group.norms.one), roughly(group.norms.two), changeText(group.norms, group.distance)],
  ]);
  if (!isWide) return table(headers, rows);
  const each = modules.map(({ path, one, two, distance }) => [
    ...[path, changed(ranksText(one ? [one.rank] : []), ranksText(two ? [two.rank] : []))],
    ...[changed(roughly(one?.scale), roughly(two?.scale)), roughly(one?.norm), roughly(two?.norm)],
    changeText({ one: one?.norm ?? null, two: two?.norm ?? null }, distance),
  ]);
  return table(['MODULE', 'RANK', 'SCALE', 'NORM ONE', 'NORM TWO', 'CHANGE'], each);
}

function ranksText(ranks: readonly number[]): string {
  return ranks.length === 0 ? 'none' : ranks.join(',');
}

function changed(one: string, two: string): string {
  return one === two ? one : `${one} -> ${two}`;
}

/** `differs`: its shape, so that there is no distance. */
function changeText(norms: { one: number | null; two: number | null }, distance: number | null): string {
  if (norms.one === null) return 'new';
  if (norms.two === null) return 'gone';
  if (distance === null) return 'differs';
  if (distance === 0) return 'none';
  return norms.one === 0 ? '-' : `${roughly((100 * distance) / norms.one)}%`;
}
