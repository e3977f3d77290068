import { chmod, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, normalize } from 'node:path';
import type { V1Container, V1KeyToPath, V1Volume, V1VolumeProjection } from '@kubernetes/client-node';
import { fieldValue, type Surroundings } from './environment.ts';
import { NotStartable } from './manifest.ts';

export const TOKEN_MOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

const TOKEN_SECONDS_DEFAULT = 3_600;
const TOKEN_RENEWED_AT = 0.8;

export interface VolumeSources extends Surroundings {
  /** A token of the pod's own ServiceAccount, bound to the pod. */
  requestToken(audience: string | undefined, seconds: number): Promise<string>;
  /** Folder of this machine that stands behind a claim of the pod's namespace. */
  claimPath(claim: string): Promise<string>;
  /** Folder of this machine that stands for what an image holds. */
  imagePath(reference: string): string;
}

type Files = Record<string, Buffer>;

/** A pod's volumes as folders; secrets, config maps and tokens are written again when `refresh` finds them changed. */
export class Volumes {
  readonly #dir: string;
  readonly #sources: VolumeSources;
  readonly #written = new Map<string, Buffer>();
  readonly #tokens = new Map<string, { token: string; renewAtMs: number }>();

  constructor(dir: string, sources: VolumeSources) {
    this.#dir = dir;
    this.#sources = sources;
  }

  async prepare(): Promise<void> {
    for (const volume of this.#sources.pod.spec.volumes ?? []) {
      const hostPath = await this.#hostPathOf(volume);
      const folder = this.#folder(volume.name);
      if (hostPath === undefined) await mkdir(folder, { recursive: true });
      else await linkTo(hostPath, folder);
    }
    await this.refresh();
  }

  async #hostPathOf({ persistentVolumeClaim, image, hostPath }: V1Volume): Promise<string | undefined> {
    if (persistentVolumeClaim) return await this.#sources.claimPath(persistentVolumeClaim.claimName);
    return image ? this.#sources.imagePath(image.reference ?? '') : hostPath?.path;
  }

  /** Writes what changed; a file that is gone from its source is removed. */
  async refresh(): Promise<void> {
    for (const volume of this.#sources.pod.spec.volumes ?? []) {
      const files = await this.#filesOf(volume);
      if (files !== null) await this.#write(volume.name, files, modeOf(volume));
    }
  }

  /** Where the container's mounts lie on this machine. */
  mountsOf(container: V1Container): Map<string, string> {
    const mounts = (container.volumeMounts ?? []).map(
      ({ name, mountPath, subPath }) =>
        [mountPath.replace(/\/$/, ''), join(this.#folder(name), subPath ?? '')] as const,
    );
    return new Map(mounts);
  }

  #folder(volume: string): string {
    return join(this.#dir, volume);
  }

  /** Null for a volume whose contents belong to the containers. */
  async #filesOf(volume: V1Volume): Promise<Files | null> {
    if (volume.secret)
      return this.#fromObject('secrets', { ...volume.secret, name: volume.secret.secretName ?? '' });
    if (volume.configMap) return this.#fromObject('configmaps', volume.configMap);
    if (volume.downwardAPI) return this.#fromProjection({ downwardAPI: volume.downwardAPI });
    if (volume.projected) {
      const parts = [];
      for (const source of volume.projected.sources ?? []) parts.push(await this.#fromProjection(source));
      return Object.assign({}, ...parts) as Files;
    }
    if (volume.emptyDir || volume.persistentVolumeClaim || volume.hostPath || volume.image) return null;
    throw new NotStartable(
      'ContainerCreating',
      `volume ${volume.name} is of a kind that this node does not have`,
    );
  }

  async #fromProjection({
    secret,
    configMap,
    downwardAPI,
    serviceAccountToken,
  }: V1VolumeProjection): Promise<Files> {
    if (secret) return this.#fromObject('secrets', secret);
    if (configMap) return this.#fromObject('configmaps', configMap);
    if (serviceAccountToken) {
      const { path, audience, expirationSeconds = TOKEN_SECONDS_DEFAULT } = serviceAccountToken;
      return { [path]: Buffer.from(await this.#token(path, audience, expirationSeconds)) };
    }
    const items = downwardAPI?.items ?? [];
    return Object.fromEntries(
      items.map(({ path, fieldRef }) => [
        path,
        Buffer.from(fieldValue(fieldRef ?? { fieldPath: '' }, this.#sources)),
      ]),
    );
  }

  async #fromObject(kind: 'secrets' | 'configmaps', reference: ObjectReference): Promise<Files> {
    const data = await this.#sources.readData(kind, reference.name ?? '');
    if (data === null && reference.optional === true) return {};
    if (data === null) throw new NotStartable('ContainerCreating', `${kind} "${reference.name}" not found`);
    if (!reference.items) return data;
    const chosen = reference.items.map(({ key, path }) => [path, data[key]] as const);
    const missing = chosen.findIndex(([, value]) => value === undefined);
    if (missing !== -1 && reference.optional !== true) {
      throw new NotStartable(
        'ContainerCreating',
        `${kind} "${reference.name}" lacks ${reference.items[missing]?.key}`,
      );
    }
    return Object.fromEntries(chosen.filter(([, value]) => value !== undefined)) as Files;
  }

  async #token(path: string, audience: string | undefined, seconds: number): Promise<string> {
    const name = `${audience ?? ''}\0${path}`;
    const held = this.#tokens.get(name);
    if (held && Date.now() < held.renewAtMs) return held.token;
    const token = await this.#sources.requestToken(audience, seconds);
    this.#tokens.set(name, { token, renewAtMs: Date.now() + seconds * 1_000 * TOKEN_RENEWED_AT });
    return token;
  }

  async #write(volume: string, files: Files, mode: number): Promise<void> {
    const folder = this.#folder(volume);
    const wanted = new Set<string>();
    for (const [name, bytes] of Object.entries(files)) {
      const path = join(folder, normalize(`/${name}`));
      wanted.add(path);
      if (this.#written.get(path)?.equals(bytes)) continue;
      await mkdir(dirname(path), { recursive: true });
      // A reader sees the old file or the new one, never half of one.
      await writeFile(`${path}.new`, bytes);
      await chmod(`${path}.new`, mode);
      await rename(`${path}.new`, path);
      this.#written.set(path, bytes);
    }
    for (const path of this.#written.keys()) {
      if (!path.startsWith(`${folder}/`) || wanted.has(path)) continue;
      await rm(path, { force: true });
      this.#written.delete(path);
    }
  }
}

interface ObjectReference {
  name?: string;
  optional?: boolean;
  items?: V1KeyToPath[];
}

function modeOf({ secret, configMap, projected }: V1Volume): number {
  return secret?.defaultMode ?? configMap?.defaultMode ?? projected?.defaultMode ?? 0o644;
}

async function linkTo(target: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await rm(path, { force: true });
  await symlink(target, path);
}

/** Processes have no mounts: a mount path at the start of a path in `text` becomes the folder that stands for it. */
export function rewriteMounts(text: string, mounts: Map<string, string>): string {
  if (mounts.size === 0) return text;
  const longestFirst = [...mounts.keys()].sort((a, b) => b.length - a.length);
  const alternatives = longestFirst.map((path) => path.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');
  const pattern = new RegExp(`(?<![\\w./-])(?:${alternatives})(?=$|[/:,;\\s"'])`, 'g');
  return text.replace(pattern, (path) => mounts.get(path) ?? path);
}
