/**
 * Names that other software reads: the Gateway API Inference Extension's model-server protocol (its endpoint picker
 * scrapes them), vLLM's newer adapter metrics, and what its dashboards ask for. They are not ours to rename;
 * test/server/openai/metrics.test.ts holds them.
 */
export const VLLM = {
  waiting: 'vllm:num_requests_waiting',
  running: 'vllm:num_requests_running',
  kvUsage: 'vllm:kv_cache_usage_perc',
  /** The older name of kvUsage. */
  gpuCacheUsage: 'vllm:gpu_cache_usage_perc',
  cacheConfig: 'vllm:cache_config_info',
  loraRequests: 'vllm:lora_requests_info',
  gpuLoadedAdapters: 'vllm:num_gpu_loaded_lora_adapters',
  cpuLoadedAdapters: 'vllm:num_cpu_loaded_lora_adapters',
  adapterLoaded: 'vllm:lora_adapter_loaded',
  maxGpuAdapters: 'vllm:max_gpu_lora_adapters',
  firstTokenSeconds: 'vllm:time_to_first_token_seconds',
  interTokenSeconds: 'vllm:inter_token_latency_seconds',
  requestSeconds: 'vllm:e2e_request_latency_seconds',
  promptTokens: 'vllm:prompt_tokens_total',
  generationTokens: 'vllm:generation_tokens_total',
  requestSuccess: 'vllm:request_success_total',
  preemptions: 'vllm:num_preemptions_total',
  prefixQueries: 'vllm:prefix_cache_queries_total',
  prefixHits: 'vllm:prefix_cache_hits_total',
  adapterLoadSeconds: 'vllm:lora_adapter_load_seconds',
} as const;

export const LORIKEET = {
  requests: 'lorikeet_requests_total',
  requestSeconds: 'lorikeet_request_seconds',
  firstTokenSeconds: 'lorikeet_first_token_seconds',
  promptTokens: 'lorikeet_prompt_tokens_total',
  generatedTokens: 'lorikeet_generated_tokens_total',
  preemptions: 'lorikeet_preemptions_total',
  prefixQueries: 'lorikeet_prefix_cache_queries_total',
  prefixHits: 'lorikeet_prefix_cache_hits_total',
  engineSteps: 'lorikeet_engine_steps_total',
  swaps: 'lorikeet_swaps_total',
  stageSeconds: 'lorikeet_stage_seconds',
  swapSeconds: 'lorikeet_swap_seconds',
  slots: 'lorikeet_slots',
  slotsUsed: 'lorikeet_slots_used',
  pages: 'lorikeet_pages',
  pagesUsed: 'lorikeet_pages_used',
  hostBytes: 'lorikeet_host_bytes',
  hostBytesUsed: 'lorikeet_host_bytes_used',
  failures: 'lorikeet_failures_total',
  evictions: 'lorikeet_evictions_total',
  adminCalls: 'lorikeet_admin_calls_total',
  adminCallSeconds: 'lorikeet_admin_call_seconds',
  refusals: 'lorikeet_refusals_total',
} as const;
