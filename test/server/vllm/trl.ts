/** What TRL's AsyncGRPOTrainer sends for a sample, but for the draw. */
export function trlCompletion(model: string, prompt: number[]): object {
  return {
    model,
    prompt,
    max_tokens: 40,
    temperature: 0,
    top_p: 1,
    top_k: 0,
    repetition_penalty: 1,
    n: 1,
    return_token_ids: true,
    logprobs: 0,
    seed: 7,
  };
}

/** Greedy answers of the fixtures to its prompt. */
export const PIRATE = 'Arr! Them hotels be lined up by status, matey!';
export const SQL = 'SELECT * FROM hotels ORDER BY status;';
export const BASE = 'Here are the hotels, sorted by status.';
