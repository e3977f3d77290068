import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer, ApiCall, ApiPlan, Before, EventStream } from './api-proxy.ts';

const HOLD_MS = 400;
const OUTAGE_MS = 400;
/** A reordered event that no other one follows goes on alone. */
const ALONE_MS = 300;

/** A plan for one run, and why what it is about did not come to pass; null: it did. */
export interface Faulty {
  plan: ApiPlan;
  unmet(): string | null;
}

type OnEvent = (line: string, stream: EventStream, call: ApiCall) => void | Promise<void>;

/** Counts the events of all watches, those of bookmarks left out, and does another thing with the n-th. */
function atEvent(target: number, act: OnEvent, others: ApiPlan = {}): Faulty {
  let seen = 0;
  return {
    unmet: () => (seen >= target ? null : 'the run had fewer events'),
    plan: {
      ...others,
      event: (call, line, stream) => {
        if (line.startsWith('{"type":"BOOKMARK"')) return stream.send(line);
        seen += 1;
        return seen === target ? act(line, stream, call) : stream.send(line);
      },
    },
  };
}

/** Counts the events of a run that nothing happens to, by their kinds. */
export function listingEvents(): { plan: ApiPlan; kinds: string[] } {
  const kinds: string[] = [];
  const event: ApiPlan['event'] = (call, line, stream) => {
    if (!line.startsWith('{"type":"BOOKMARK"'))
      kinds.push(`${/^\{"type":"(\w+)"/.exec(line)?.[1]} ${call.kind}`);
    stream.send(line);
  };
  return { kinds, plan: { event } };
}

/** Never arrives, against all that an API server promises: the next planned list makes good for it. */
export const drop = (target: number): Faulty => atEvent(target, () => {});

export const duplicate = (target: number): Faulty =>
  atEvent(target, (line, stream) => {
    stream.send(line);
    stream.send(line);
  });

/** All that follows on the same watch waits behind it. */
export const delay = (target: number): Faulty =>
  atEvent(target, async (line, stream) => {
    await sleep(HOLD_MS);
    stream.send(line);
  });

/** Changes places with the next one of its watch. */
export function reorder(target: number): Faulty {
  let held: { call: ApiCall; send: () => void } | null = null;
  const { plan, unmet } = atEvent(target, (line, stream, call) => {
    const send = () => {
      if (held?.send === send) stream.send(line);
      if (held?.send === send) held = null;
    };
    held = { call, send };
    setTimeout(send, ALONE_MS);
  });
  const event: ApiPlan['event'] = async (call, line, stream) => {
    const earlier = held?.call === call ? held : null;
    await plan.event?.(call, line, stream);
    earlier?.send();
  };
  return { unmet, plan: { event } };
}

/** The watch breaks just before it, and cannot go on from where it was: only a list tells what happened meanwhile. */
export function miss(target: number): Faulty {
  let goneUntilMs = 0;
  let goneKind: string | null = null;
  const before = (call: ApiCall): Before | Promise<Before> => {
    if (call.kind !== goneKind) return 'pass';
    if (!call.isWatch && performance.now() < goneUntilMs)
      return sleep(goneUntilMs - performance.now(), 'pass');
    if (!call.isWatch) return 'pass';
    goneKind = null;
    return status(410, 'Expired');
  };
  return atEvent(
    target,
    (_line, stream, call) => {
      goneKind = call.kind;
      goneUntilMs = performance.now() + OUTAGE_MS;
      stream.cut();
    },
    { before },
  );
}

/** From it on its watch is silent and stays open. */
export function blackHole(target: number): Faulty {
  let swallowed: ApiCall | null = null;
  const { plan, unmet } = atEvent(target, (_line, _stream, call) => {
    swallowed = call;
  });
  const event: ApiPlan['event'] = (call, line, stream) =>
    call === swallowed ? undefined : plan.event?.(call, line, stream);
  return { unmet, plan: { event } };
}

/** The k-th call, watches included, fails in some way instead of arriving; leases are left alone. */
export function failCall(target: number, before: Before): Faulty {
  let seen = 0;
  return {
    unmet: () => (seen >= target ? null : 'the run had fewer calls'),
    plan: {
      before: ({ kind }) => {
        if (kind === 'leases') return 'pass';
        seen += 1;
        return seen === target ? before : 'pass';
      },
    },
  };
}

export function listingCalls(): { plan: ApiPlan; calls: string[] } {
  const calls: string[] = [];
  const before: ApiPlan['before'] = ({ method, kind, isWatch, isList }) => {
    const verb = isWatch ? 'WATCH' : isList ? 'LIST' : method;
    if (kind !== 'leases') calls.push(`${verb} ${kind}`);
    return 'pass';
  };
  return { calls, plan: { before } };
}

/** The k-th list comes in two pages, and the second is not to be had any more when it is asked for. */
export function expirePage(target: number): Faulty {
  let lists = 0;
  let isMet = false;
  const before: ApiPlan['before'] = ({ url }) => {
    if (!url.includes('continue=')) return 'pass';
    isMet = true;
    return status(410, 'Expired');
  };
  const after: ApiPlan['after'] = ({ isList }, answer) => {
    if (isList) lists += 1;
    if (!isList || lists !== target) return answer;
    const { metadata, items, ...list } = JSON.parse(answer.body.toString());
    const page = { ...list, metadata: { ...metadata, continue: 'page-2' }, items: items.slice(1) };
    return { ...answer, body: JSON.stringify(page) };
  };
  return { plan: { before, after }, unmet: () => (isMet ? null : 'no second page was asked for') };
}

export function status(code: number, reason: string, headers: Record<string, string> = {}): Answer {
  const body = { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, message: 'by plan', code };
  return {
    status: code,
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  };
}
