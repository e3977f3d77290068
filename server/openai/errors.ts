import type { FastifyError } from 'fastify';
import { LorikeetError } from '../contract/errors.ts';
import { type Expectation, expectationText } from '../contract/expectation.ts';
import type { FailureCode } from '../engine/port.ts';
import { ChatTemplateError } from '../text/chat-template.ts';
import { EncoderError } from '../text/encoder-job.ts';
import type { Answer } from '../transfer/refusal.ts';

interface OpenAiErrorKind {
  /** Of HTTP; it is also the envelope's `code`. */
  status: number;
  type: string;
  /** Absent where the same request will not succeed. */
  retryAfterSeconds?: number;
}

/** Every refusal of this API; `type` and the numeric code are vLLM's, which routers in front of us read. */
export const OPENAI_ERRORS = {
  bad_request: { status: 400, type: 'BadRequestError' },
  invalid_user_input: { status: 400, type: 'InvalidUserInput' },
  unauthenticated: { status: 401, type: 'AuthenticationError' },
  adapter_not_found: { status: 404, type: 'NotFoundError' },
  model_not_found: { status: 404, type: 'NotFoundError' },
  route_not_found: { status: 404, type: 'NotFoundError' },
  request_timeout: { status: 408, type: 'RequestTimeoutError' },
  /** A later try may find another revision, but when is not ours to say. */
  expectation_unmet: { status: 409, type: 'ConflictError' },
  body_too_large: { status: 413, type: 'PayloadTooLargeError' },
  unsupported_media_type: { status: 415, type: 'UnsupportedMediaTypeError' },
  /** Not of 500: nothing is wrong with the pod, which a router would take out, and no retry helps. */
  non_finite: { status: 422, type: 'UnprocessableEntityError' },
  header_too_large: { status: 431, type: 'RequestHeaderFieldsTooLargeError' },
  internal: { status: 500, type: 'InternalServerError' },
  engine_failed: { status: 500, type: 'InternalServerError' },
  /** Of the bridge: a pod's answer is of another revision than the one that was asked for, and is not passed on. */
  wrong_revision: { status: 502, type: 'BadGatewayError' },
  push_failed: { status: 502, type: 'BadGatewayError' },
  no_slot: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  queue_full: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  overloaded: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  shutting_down: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 5 },
  paused: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  not_ready: { status: 503, type: 'ServiceUnavailableError' },
  engine_away: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  pods_lost: { status: 503, type: 'ServiceUnavailableError', retryAfterSeconds: 1 },
  fleet_lags: { status: 504, type: 'GatewayTimeoutError' },
  pod_silent: { status: 504, type: 'GatewayTimeoutError' },
} satisfies Record<string, OpenAiErrorKind>;

export type OpenAiErrorCode = keyof typeof OPENAI_ERRORS;

/** A refusal in OpenAI's envelope. */
export class OpenAiError extends Error {
  readonly kind: OpenAiErrorKind;
  readonly param: string | null;

  constructor(code: OpenAiErrorCode, message: string, param?: string) {
    // Both may quote what the client sent.
    super(message.toWellFormed());
    this.kind = OPENAI_ERRORS[code];
    this.param = param?.toWellFormed() ?? null;
  }

  get status(): number {
    return this.kind.status;
  }

  toJSON(): { error: { message: string; type: string; param: string | null; code: number } } {
    const { type, status } = this.kind;
    return { error: { message: this.message, type, param: this.param, code: status } };
  }
}

/** The client has gone; nobody reads the answer. */
export class Disconnected extends Error {}

export function badRequest(message: string, param?: string): OpenAiError {
  return new OpenAiError('bad_request', message, param);
}

export function modelNotFound(model: string): OpenAiError {
  return new OpenAiError('model_not_found', `The model ${JSON.stringify(model)} does not exist.`, 'model');
}

/** `actual` is what `model` stands for. */
export function expectationUnmet(
  model: string,
  expectation: Expectation,
  actual: { digest: string; step: number | null },
): OpenAiError {
  const want = `Expected ${expectationText(expectation)} for ${JSON.stringify(model)}`;
  const step = actual.step === null ? 'no step' : `step ${actual.step}`;
  const message = `${want} but received revision ${actual.digest} of ${step}.`;
  return new OpenAiError('expectation_unmet', message, 'lora.expect');
}

/** What a `failed` event of the engine means to the client; `lora` is whose weights the request ran with. */
export function engineFailure(
  code: FailureCode,
  model: string,
  lora: { name: string; revision: string } | null = null,
): OpenAiError {
  switch (code) {
    case 'adapter_not_found':
      return modelNotFound(model);
    case 'not_resident':
      return new OpenAiError('no_slot', `No slot became free for ${model}.`, 'model');
    case 'queue_full':
      return new OpenAiError('queue_full', 'Too many requests wait already.');
    case 'engine_away':
      return engineAway();
    case 'closing':
      return new OpenAiError('shutting_down', 'The server is shutting down.');
    case 'non_finite':
      return lora === null ? engineFailed() : overflow(lora);
    default:
      return engineFailed();
  }
}

export function engineAway(): OpenAiError {
  return new OpenAiError('engine_away', 'The engine behind this server is away for now.');
}

function engineFailed(): OpenAiError {
  return new OpenAiError('engine_failed', 'The engine failed.');
}

function overflow({ name, revision }: { name: string; revision: string }): OpenAiError {
  const adapter = `Revision ${revision} of the adapter ${JSON.stringify(name)}`;
  return new OpenAiError('non_finite', `${adapter} overflows: it made logits that are not finite.`, 'model');
}

/** Any error as a refusal; what is not ours to show becomes a plain 500. */
export function toOpenAiError(error: unknown): OpenAiError {
  if (error instanceof OpenAiError) return error;
  if (error instanceof ChatTemplateError)
    return badRequest(`The chat template refused: ${error.message}`, 'messages');
  if (error instanceof EncoderError) return ofEncoderError(error);
  if (error instanceof LorikeetError) return ofLorikeetError(error);
  const { statusCode = 500, message = 'bad request', code } = error as Partial<FastifyError>;
  if (code === 'invalid_argument') return badRequest(message);
  if (statusCode === 413) return new OpenAiError('body_too_large', message);
  if (statusCode === 415) return new OpenAiError('unsupported_media_type', message);
  if (statusCode >= 400 && statusCode < 500) return badRequest(message);
  return new OpenAiError('internal', 'Internal error.');
}

function ofEncoderError({ code, message }: EncoderError): OpenAiError {
  switch (code) {
    case 'too_slow':
      return badRequest(message, 'prompt');
    case 'too_many_jobs':
      return new OpenAiError('queue_full', message);
    case 'closed':
      return new OpenAiError('shutting_down', message);
  }
}

function ofLorikeetError({ code, message }: LorikeetError): OpenAiError {
  switch (code) {
    case 'adapter_not_found':
    case 'revision_not_found':
      return new OpenAiError('model_not_found', message, 'model');
    case 'no_capacity':
      return new OpenAiError('no_slot', message, 'model');
    case 'engine_away':
      return engineAway();
    case 'shutting_down':
      return new OpenAiError('shutting_down', message);
    case 'request_timeout':
      return new OpenAiError('request_timeout', message);
    case 'header_too_large':
      return new OpenAiError('header_too_large', message);
    case 'malformed_request':
      return badRequest(message);
    default:
      return new OpenAiError('internal', 'Internal error.');
  }
}

/** Node's word for a stream whose reader went away. */
export function isDisconnected(error: unknown): boolean {
  return (
    error instanceof Disconnected || (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE'
  );
}

export function answerOf(error: unknown): Answer {
  const refusal = toOpenAiError(error);
  const { status, retryAfterSeconds } = refusal.kind;
  const headers: Record<string, string> = { 'content-type': 'application/json; charset=utf-8' };
  if (retryAfterSeconds !== undefined) headers['retry-after'] = String(retryAfterSeconds);
  return { status, headers, body: JSON.stringify(refusal) };
}
