import type {
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
  publish(publication: Publication): Promise<PublishResult>;
  /** What would fit where, and why not. */
  why(namespace: string, name: string): Why;
  rollback(rollback: Rollback): Promise<RollbackResult>;
}
