import { ConfigError } from '../contract/flags.ts';
import type { PushCalls, PushTarget } from './push.ts';
import { OperatorPush } from './push-operator.ts';
import { PodsPush } from './push-pods.ts';

/** What --push names: an operator's namespace, one LoraAdapter there (as status.pushURL has it), or pods' admin APIs. */
export type PushPlace =
  | { kind: 'operator'; namespaceUrl: string; object: string | null }
  | { kind: 'pods'; adminUrls: string[] };

const OPERATOR = /^(.*\/v1\/namespaces\/[^/]+)(?:\/adapters\/([^/]+)(?:\/revisions)?)?$/;

export function readPlace(urls: readonly string[]): PushPlace {
  const plain = urls.map((url) => url.replace(/\/+$/, ''));
  const operators = plain.map((url) => OPERATOR.exec(url)).filter((match) => match !== null);
  const [operator] = operators;
  if (operator === undefined) return { kind: 'pods', adminUrls: plain };
  if (plain.length > 1) throw new ConfigError('Expected one URL for --push where it is of an operator');
  const [, namespaceUrl = '', object] = operator;
  return { kind: 'operator', namespaceUrl, object: object === undefined ? null : decodeURIComponent(object) };
}

export function openTarget(place: PushPlace, baseModel: () => Promise<string>, calls: PushCalls): PushTarget {
  if (place.kind === 'pods') return new PodsPush(place.adminUrls, baseModel, calls);
  return new OperatorPush(place.namespaceUrl, place.object, calls);
}
