import type { Fence } from '../../server/contract/adapter-api.ts';
import type { Publication, PublishResult, PushContext } from '../adapter/publish/publication.ts';

/** The side of the operator that knows what is desired. All three throw LorikeetError. */
export interface Publisher {
  context(namespace: string, name: string): PushContext;
  publish(publication: Publication): Promise<PublishResult>;
  fenceFor(namespace: string, name: string): Fence;
}
