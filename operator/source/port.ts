import type { Readable } from 'node:stream';
import type { SourcedAdapter } from './types.ts';

/** The objects of an adapter, by what they are called below its uri. */
export const OBJECTS = { config: 'adapter_config.json', tensors: 'adapter_model.safetensors' } as const;
export type ObjectKey = (typeof OBJECTS)[keyof typeof OBJECTS];

/** An object in one of its versions. */
export interface StoredObject {
  key: ObjectKey;
  /** Another one for other bytes; without commas. */
  version: string;
  size: number;
  /** What its bytes must come to, in lower-case hex, and the field of the spec that says so. Absent: nothing does. */
  wanted?: { sha256: string; field: string };
  /** The store knows no ranges: only the span of all bytes can be opened. */
  isWhole?: true;
}

/** `end` is exclusive. */
export interface Span {
  begin: number;
  end: number;
}

/** All bytes of an object that is to be. */
export interface NewObject {
  key: ObjectKey;
  size: number;
  body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** One scheme's way to the objects of one adapter. Both calls reject with a SourceError, or the reason of the signal. */
export interface ObjectStore {
  /** What is there now. */
  head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject>;
  /** Just these bytes, of just this version: SourceChanged where the store has another by now. */
  open(object: StoredObject, span: Span, signal: AbortSignal): Promise<Readable>;
  /** Only the whole object becomes visible. Absent where a scheme is read alone. */
  write?(object: NewObject, signal: AbortSignal): Promise<void>;
  close(): void;
}

/** For one resolve or one fetch; who opens closes. Terminal SourceInvalid where the spec names no place of this scheme. */
export type OpenStore = (adapter: SourcedAdapter, signal: AbortSignal) => Promise<ObjectStore>;
