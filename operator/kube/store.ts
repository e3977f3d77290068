import { type KubeObject, keyOf } from './resource.ts';

interface StoreChange<T> {
  type: 'added' | 'updated' | 'deleted';
  object: T;
  previous?: T;
}

/** The objects of one kind by key. Each mutation says what it changed; what goes in comes out deeply frozen. */
export class Store<T extends KubeObject> {
  readonly #objects = new Map<string, T>();

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  put(object: T): StoreChange<T>[] {
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous?.metadata.resourceVersion === object.metadata.resourceVersion && previous !== undefined)
      return [];
    const frozen = freeze(object);
    this.#objects.set(key, frozen);
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
    this.#objects.delete(key);
    return [{ type: 'deleted', object: freeze(object), previous }];
  }

  /** Makes the store what the list says. */
  replace(objects: T[]): StoreChange<T>[] {
    const present = new Set(objects.map(keyOf));
    const gone = [...this.#objects].filter(([key]) => !present.has(key));
    for (const [key] of gone) this.#objects.delete(key);
    const deleted = gone.map(([, object]): StoreChange<T> => ({ type: 'deleted', object }));
    return [...deleted, ...objects.flatMap((object) => this.put(object))];
  }
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
