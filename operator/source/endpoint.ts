import { Terminal } from './types.ts';

/** Normalised by the one URL parser that also makes the connection; null where none is named. */
export function endpointOf(endpoint: string | undefined): string | null {
  if (!endpoint) return null;
  if (!URL.canParse(endpoint)) throw invalid('Expected a URL for endpoint.');
  const url = new URL(endpoint);
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw invalid('Expected an http or https endpoint.');
  if (url.username || url.password || url.search || url.hash) {
    throw invalid('Expected an endpoint without user, password, query and fragment.');
  }
  return url.href;
}

function invalid(message: string): Terminal {
  return new Terminal('SourceInvalid', message);
}
