import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import { createLog } from '../../../server/contract/log.ts';
import {
  answerTrace,
  currentTrace,
  inTrace,
  keepingTrace,
  readTrace,
  traceFields,
  writeTrace,
} from '../../../server/contract/trace.ts';

const TRACE = '0af7651916cd43dd8448eb211c80319c';
const SPAN = 'b7ad6b7169203331';
const PARENT = `00-${TRACE}-${SPAN}-01`;

describe('the trace of a request', () => {
  it("is its caller's, with a span of its own", () => {
    const trace = readTrace({ traceparent: PARENT, tracestate: 'congo=t61' });
    expect(trace).toMatchObject({ traceId: TRACE, isSampled: true, state: 'congo=t61', requestId: TRACE });
    expect(trace.spanId).toMatch(/^(?!b7ad6b7169203331)[0-9a-f]{16}$/);
  });

  it('is the same behind a later version of the header', () => {
    expect(readTrace({ traceparent: `cc-${TRACE}-${SPAN}-00-more` })).toMatchObject({
      traceId: TRACE,
      isSampled: false,
    });
  });

  it.each([
    ['version ff', `ff-${TRACE}-${SPAN}-01`],
    ['more than version 00 has', `${PARENT}-more`],
    ['no trace id', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['no parent id', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['capitals', PARENT.toUpperCase()],
    ['too few digits', `00-${TRACE}-${SPAN.slice(1)}-01`],
    ['text of a stranger', 'a\nb'],
    ['two of them', [PARENT, PARENT]],
  ])('is made anew for %s, and nothing is passed on of its state', (_, traceparent) => {
    const trace = readTrace({ traceparent, tracestate: 'congo=t61' });
    expect(trace).toMatchObject({ isSampled: false, state: null });
    expect(trace.traceId).toMatch(/^[0-9a-f]{32}$/);
    expect(trace.traceId).not.toBe(TRACE);
  });

  it('is another one each time where there is none', () => {
    expect(readTrace({}).traceId).not.toBe(readTrace({}).traceId);
  });

  it('is what a request id says where that is a UUID', () => {
    const id = '0AF76519-16cd-43dd-8448-eb211c80319c';
    expect(readTrace({ 'x-request-id': id })).toMatchObject({ traceId: TRACE, requestId: id });
  });

  it('keeps any other request id beside it, and takes none that could break a line', () => {
    expect(readTrace({ traceparent: PARENT, 'x-request-id': 'req_42' })).toMatchObject({
      traceId: TRACE,
      requestId: 'req_42',
    });
    for (const id of ['a b', 'a\r\nset-cookie: b', 'é', 'x'.repeat(129)])
      expect(readTrace({ traceparent: PARENT, 'x-request-id': id }).requestId).toBe(TRACE);
  });
});

describe('what is done in the name of a trace', () => {
  const trace = { ...readTrace({ traceparent: PARENT, 'x-request-id': 'req_42' }), spanId: SPAN };

  it('is called with it, and logged with it', async () => {
    const lines: object[] = [];
    const log = createLog('info', { write: (line) => void lines.push(JSON.parse(line)) });
    await inTrace(trace, async () => {
      await new Promise(setImmediate);
      expect(writeTrace()).toEqual({ traceparent: PARENT, 'x-request-id': 'req_42' });
      log.info({ adapter: 'sql' }, 'pushed');
    });
    log.info('idle');
    expect(lines).toMatchObject([{ trace_id: TRACE, span_id: SPAN, request_id: 'req_42' }, { msg: 'idle' }]);
    expect(lines[1]).not.toHaveProperty('trace_id');
  });

  it('tells a request id only where it is another', () => {
    const own = readTrace({});
    expect(inTrace(own, traceFields)).toEqual({ trace_id: own.traceId, span_id: own.spanId });
    expect(Object.keys(inTrace(own, writeTrace))).toEqual(['traceparent']);
    expect(answerTrace(own)['x-request-id']).toBe(own.traceId);
  });

  it('is known to a listener that asks to keep it, and not outside', () => {
    const emitter = new EventEmitter();
    const seen: unknown[] = [];
    inTrace(trace, () =>
      emitter.on(
        'end',
        keepingTrace(() => seen.push(currentTrace())),
      ),
    );
    emitter.on('end', () => seen.push(currentTrace()));
    emitter.emit('end');
    expect(seen).toEqual([trace, null]);
    expect([writeTrace(), traceFields()]).toEqual([{}, {}]);
  });
});
