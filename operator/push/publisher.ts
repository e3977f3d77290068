import type {
  Held,
  Publication,
  PublishResult,
  PushContext,
  Rollback,
  RollbackResult,
} from '../adapter/publish/publication.ts';
import type { Why } from '../adapter/why.ts';

/**
 * The side of the operator that knows what is desired. What it refuses is a LorikeetError; a publication or rollback that
 * takes too long is its signal's reason.
 */
export interface Publisher {
  context(namespace: string, name: string): PushContext;
  /** Refuses, before any byte of its body is read, a push that is beyond its namespace's quota; else counts it. */
  admit(namespace: string, name: string, bytes: number): void;
  publish(publication: Publication): Promise<PublishResult>;
  /** What its pods hold, also where no push may be begun. */
  held(namespace: string, name: string): Held;
  /** What would fit where, and why not. */
  why(namespace: string, name: string): Why;
  rollback(rollback: Rollback): Promise<RollbackResult>;
}
