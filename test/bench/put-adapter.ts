import type { AdapterFiles } from '../e2e/client.ts';

/** One push to a pod's admin API; throws where it is refused. */
export async function putAdapter(
  url: string,
  token: string,
  { tensors, config }: AdapterFiles,
): Promise<void> {
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/octet-stream',
    'x-lora-config': config.toString('base64url'),
  };
  const response = await fetch(url, { method: 'PUT', headers, body: new Uint8Array(tensors) });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status} ${text}`);
}
