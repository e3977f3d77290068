import type { AdapterFiles } from '../client.ts';
import type { Cluster } from '../cluster.ts';
import type { Narrator } from '../narrator.ts';
import type { SeenPod } from '../objects.ts';

/** Where the story is told: what differs between a cluster of its own and one that is given. */
export interface Place {
  readonly cluster: Cluster;
  /** What holds the adapters that the operator fetches, at the start of a sentence. */
  readonly storeName: string;
  /** Everything but the charts. */
  start(tell: Narrator): Promise<void>;
  applyCharts(): Promise<void>;
  /** Puts files where the operator can fetch them from; returns the LoraAdapter that names them. */
  store(name: string, files: AdapterFiles): Promise<object>;
  /** URL by which this machine reaches a port of a pod. */
  reach(pod: SeenPod, port: number): Promise<string>;
  removePod(name: string): Promise<void>;
  /** What somebody who wants to play with it has to know. */
  tellPlaces(tell: Narrator): void;
  stop(tell: Narrator): Promise<void>;
}
