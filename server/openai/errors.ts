import { type ErrorCode, LorikeetError } from '../contract/errors.ts';
import { ChatTemplateError } from '../text/chat-template.ts';
import { EncoderError } from '../text/encoder.ts';

/** A refusal in OpenAI's envelope; `type` and the numeric `code` are vLLM's, which routers in front of us read. */
export class ApiError extends Error {
  readonly status: number;
  readonly param: string | null;
  readonly retryAfterSeconds: number | null;

  constructor(status: number, message: string, detail: { param?: string; retryAfterSeconds?: number } = {}) {
    super(message);
    this.status = status;
    this.param = detail.param ?? null;
    this.retryAfterSeconds = detail.retryAfterSeconds ?? null;
  }

  toJSON(): { error: { message: string; type: string; param: string | null; code: number } } {
    const type =
      TYPE_OF_STATUS[this.status] ?? (this.status < 500 ? 'BadRequestError' : 'InternalServerError');
    return { error: { message: this.message, type, param: this.param, code: this.status } };
  }
}

const TYPE_OF_STATUS: Record<number, string> = {
  404: 'NotFoundError',
  408: 'RequestTimeoutError',
  413: 'PayloadTooLargeError',
  415: 'UnsupportedMediaTypeError',
  500: 'InternalServerError',
  503: 'ServiceUnavailableError',
};

/** The client has gone; nobody reads the answer. */
export class ClientGone extends Error {}

export function badRequest(message: string, param?: string): ApiError {
  return new ApiError(400, message, param === undefined ? {} : { param });
}

export function modelNotFound(model: string): ApiError {
  return new ApiError(404, `The model ${JSON.stringify(model)} does not exist.`, { param: 'model' });
}

/** What a `failed` event of the engine means to the client. */
export function engineFailure(code: string, model: string): ApiError {
  switch (code) {
    case 'adapter_not_found':
    case 'revision_not_found':
      return modelNotFound(model);
    case 'not_resident':
      return new ApiError(503, `No slot became free for ${model}.`, { param: 'model', retryAfterSeconds: 1 });
    case 'queue_full':
      return new ApiError(503, 'Too many requests wait already.', { retryAfterSeconds: 1 });
    case 'closing':
      return new ApiError(503, 'The server is shutting down.', { retryAfterSeconds: 5 });
    default:
      return new ApiError(500, 'The engine failed.');
  }
}

const RETRY_AFTER_SECONDS: Partial<Record<ErrorCode, number>> = {
  no_capacity: 1,
  shutting_down: 5,
  not_seeded: 1,
};

/** Any error as a refusal; what is not ours to show becomes a plain 500. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof ChatTemplateError)
    return badRequest(`The chat template refused: ${error.message}`, 'messages');
  if (error instanceof EncoderError) return ofEncoderError(error);
  if (error instanceof LorikeetError) return ofLorikeetError(error);
  const { statusCode, message, code } = error as { statusCode?: number; message?: string; code?: string };
  if (code === 'invalid_argument') return badRequest(message ?? 'invalid argument');
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new ApiError(statusCode, message ?? 'bad request');
  }
  return new ApiError(500, 'Internal error.');
}

function ofEncoderError({ code, message }: EncoderError): ApiError {
  return code === 'too_slow'
    ? badRequest(message, 'prompt')
    : new ApiError(503, message, { retryAfterSeconds: 1 });
}

function ofLorikeetError(error: LorikeetError): ApiError {
  const unknownModel = error.code === 'adapter_not_found' || error.code === 'revision_not_found';
  const retryAfterSeconds = RETRY_AFTER_SECONDS[error.code];
  return new ApiError(unknownModel ? 404 : error.status, error.message, {
    ...(unknownModel || error.code === 'no_capacity' ? { param: 'model' } : {}),
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
}
