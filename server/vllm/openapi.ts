const GET = [
  '/health',
  '/ready',
  '/metrics',
  '/v1/models',
  '/is_paused',
  '/server_info',
  '/get_world_size',
  '/weight_info',
  '/liveness',
  '/openapi.json',
];
const POST = [
  '/v1/completions',
  '/v1/chat/completions',
  '/tokenize',
  '/detokenize',
  '/v1/load_lora_adapter',
  '/load_lora_adapter',
  '/skyrl/v1/load_lora_adapter',
  '/v1/unload_lora_adapter',
  '/pause',
  '/resume',
  '/reset_prefix_cache',
  '/inference/v1/generate',
];

type IsServed = (method: 'GET' | 'POST', path: string) => boolean;

/** Which paths there are, for clients that look before they call; it describes no shapes. */
export function openApi(isServed: IsServed = () => true): object {
  const described = (paths: string[], method: 'get' | 'post') =>
    paths
      .filter((path) => isServed(method === 'get' ? 'GET' : 'POST', path))
      .map((path) => [path, { [method]: { responses: { 200: { description: 'OK' } } } }] as const);
  return {
    openapi: '3.1.0',
    info: { title: 'Lorikeet', version: '1' },
    paths: Object.fromEntries([...described(GET, 'get'), ...described(POST, 'post')]),
  };
}
