import type { ServedModel } from '../openai/serving.ts';

export interface EngineFacts {
  dtype: string;
  slots: number;
  maxRank: number;
}

/** The parts of vLLM's configuration that clients read; as JSON only where they say so, as there. */
export function serverInfo(
  model: Pick<ServedModel, 'name' | 'maxTokens'>,
  { dtype, slots, maxRank }: EngineFacts,
  { config_format: format }: Record<string, unknown>,
): { vllm_config: object | string } {
  const config = {
    model_config: {
      model: model.name,
      served_model_name: model.name,
      max_model_len: model.maxTokens,
      dtype: `torch.${dtype}`,
    },
    lora_config: { max_lora_rank: maxRank, max_loras: slots },
    parallel_config: {
      data_parallel_size: 1,
      tensor_parallel_size: 1,
      pipeline_parallel_size: 1,
      world_size: 1,
    },
  };
  return { vllm_config: format === 'json' ? config : JSON.stringify(config) };
}
