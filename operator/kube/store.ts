import { type KubeObject, keyOf } from './resource.ts';

interface StoreChange<T> {
  type: 'added' | 'updated' | 'deleted';
  object: T;
  previous?: T;
}

/** By name of the index: what an object is to be found under besides its key; null: not there. Of the object alone. */
export type Indexes<T, I extends string> = Readonly<Record<I, (object: T) => string | null>>;

interface Bucket<T> {
  objects: Map<string, T>;
  version: number;
}

/** The objects of one kind by key. Each mutation says what it changed; what goes in comes out deeply frozen. */
export class Store<T extends KubeObject, I extends string = never> {
  readonly #objects = new Map<string, T>();
  readonly #indexes: [I, (object: T) => string | null][];
  /** By name of the index and value, which is no name of an index. */
  readonly #buckets = new Map<string, Bucket<T>>();
  #version = 0;

  constructor(indexes?: Indexes<T, I>) {
    this.#indexes = Object.entries(indexes ?? {}) as [I, (object: T) => string | null][];
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  /** Those that an index has under a value, without a look at the others. */
  by(index: I, value: string): Iterable<T> {
    return this.#buckets.get(bucketKey(index, value))?.objects.values() ?? [];
  }

  /** Another one whenever an object comes there, goes, or asks for something else; not when only its status changes. */
  versionOf(index: I, value: string): number {
    return this.#buckets.get(bucketKey(index, value))?.version ?? 0;
  }

  put(object: T): StoreChange<T>[] {
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous?.metadata.resourceVersion === object.metadata.resourceVersion && previous !== undefined)
      return [];
    const frozen = freeze(object);
    this.#set(key, frozen, previous);
    if (previous === undefined) return [{ type: 'added', object: frozen }];
    if (previous.metadata.uid === object.metadata.uid) return [{ type: 'updated', object: frozen, previous }];
    return [
      { type: 'deleted', object: previous },
      { type: 'added', object: frozen },
    ];
  }

  /** A delete of an older object with the same name, come late, changes nothing. */
  remove(object: T): StoreChange<T>[] {
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous === undefined || previous.metadata.uid !== object.metadata.uid) return [];
    this.#set(key, undefined, previous);
    return [{ type: 'deleted', object: freeze(object), previous }];
  }

  /** Makes the store what the list says. */
  replace(objects: T[]): StoreChange<T>[] {
    const present = new Set(objects.map(keyOf));
    const gone = [...this.#objects].filter(([key]) => !present.has(key));
    for (const [key, object] of gone) this.#set(key, undefined, object);
    const deleted = gone.map(([, object]): StoreChange<T> => ({ type: 'deleted', object }));
    return [...deleted, ...objects.flatMap((object) => this.put(object))];
  }

  #set(key: string, object: T | undefined, previous: T | undefined): void {
    if (object === undefined) this.#objects.delete(key);
    else this.#objects.set(key, object);
    for (const [index, valueIn] of this.#indexes) {
      const [from, to] = [previous, object].map((item) => (item === undefined ? null : valueIn(item)));
      if (from != null && from !== to) this.#leave(bucketKey(index, from), key);
      if (to == null || object === undefined) continue;
      const isSame = from === to && previous !== undefined && asksTheSame(previous, object);
      this.#enter(bucketKey(index, to), key, { object, isSame });
    }
  }

  #enter(at: string, key: string, { object, isSame }: { object: T; isSame: boolean }): void {
    const bucket = this.#buckets.get(at) ?? { objects: new Map<string, T>(), version: 0 };
    this.#buckets.set(at, bucket);
    bucket.objects.set(key, object);
    if (!isSame) bucket.version = this.#nextVersion();
  }

  #leave(at: string, key: string): void {
    const bucket = this.#buckets.get(at);
    if (bucket === undefined) return;
    bucket.objects.delete(key);
    bucket.version = this.#nextVersion();
    if (bucket.objects.size === 0) this.#buckets.delete(at);
  }

  /** One count for all, so that a bucket that went and came again is not as it was. */
  #nextVersion(): number {
    this.#version += 1;
    return this.#version;
  }
}

function bucketKey(index: string, value: string): string {
  return `${index} ${value}`;
}

function asksTheSame({ metadata: a }: KubeObject, { metadata: b }: KubeObject): boolean {
  return a.uid === b.uid && a.generation === b.generation && a.deletionTimestamp === b.deletionTimestamp;
}

/** Managed fields are half of an object's size, and nothing here reads them. */
function freeze<T extends KubeObject>(object: T): T {
  Reflect.deleteProperty(object.metadata, 'managedFields');
  deepFreeze(object);
  return object;
}

function deepFreeze(value: unknown): void {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return;
  Object.freeze(value);
  for (const item of Object.values(value)) deepFreeze(item);
}
