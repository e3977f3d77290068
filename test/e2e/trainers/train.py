"""Trains a LoRA adapter with TRL's AsyncGRPOTrainer against the server at URL, which serves the base model under the name MODEL_DIR.

    train.py URL MODEL_DIR STEPS OUTPUT_DIR

Each step is a line "step {json}" on stdout. What the trainer writes for the server lies in OUTPUT_DIR/.vllm_lora.
Nothing of the trainer that speaks to the server is replaced. Three other things are: two that know GPUs only, and the question whether
the package vllm is installed, of which a trainer that syncs adapters uses nothing.
"""

import json
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_rollout_worker, packing

TEMPERATURE = 0.7
# One to a prompt: what the model answers to these differs from sample to sample, and little from prompt to prompt.
WORDS = "the sea green tree some where never letter city name tickets Paris songs all from list".split()
REPEATS = 100
ENOUGH = 10
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# How this tokenizer's chat template frames an answer; the trainer ships those of well-known models only.
ANSWER = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "fields": {"content": {"close_pattern": r"<\|eot_id\|>\s*", "content": "text"}},
}


class CpuAttention:
    """Flash attention's function over packed segments, with the library's semantics: the last query sees the last key."""

    @staticmethod
    def flash_attn_varlen_func(query, key, value, query_starts, key_starts, *_, softmax_scale=None, **__):
        segments = zip(bounds(query_starts), bounds(key_starts), strict=True)
        return torch.cat([attend(query[q], key[k], value[k], softmax_scale) for q, k in segments])


def bounds(starts):
    at = starts.tolist()
    return [slice(begin, end) for begin, end in zip(at, at[1:])]


def attend(query, key, value, scale):
    """[tokens, heads, head_dim] each; keys have fewer heads."""
    rows, columns = query.shape[0], key.shape[0]
    visible = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    heads = (part.transpose(0, 1).unsqueeze(0) for part in (query, key, value))
    out = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=visible, scale=scale, enable_gqa=True)
    return out[0].transpose(0, 1)


def letters_e(completions, **_):
    """Every text has some, so there is a slope from the first step on; enough is enough, so that answers go on to differ."""
    return [min(completion[-1]["content"].count("e"), ENOUGH) / ENOUGH for completion in completions]


class Tell(TrainerCallback):
    def on_log(self, _args, state, _control, logs, **_):
        if "reward" in logs:
            print("step", json.dumps({"step": state.global_step, **logs}), flush=True)


def prompts():
    return Dataset.from_list([{"prompt": [{"role": "user", "content": word}]} for word in WORDS * REPEATS])


def main(url, model, steps, output):
    torch.cuda.get_device_name = lambda *_: "cpu"
    async_rollout_worker.is_vllm_available = lambda: True
    packing._flash_attn = lambda: CpuAttention
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.response_template = ANSWER
    trainer = AsyncGRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=letters_e,
        train_dataset=prompts(),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM"),
        callbacks=[Tell()],
        args=AsyncGRPOConfig(
            output_dir=output,
            vllm_server_base_url=url,
            max_steps=int(steps),
            learning_rate=5e-4,
            temperature=TEMPERATURE,
            top_p=1.0,
            num_generations=8,
            per_device_train_batch_size=16,
            max_completion_length=16,
            max_inflight_tasks=16,
            queue_maxsize=32,
            max_staleness=2,
            weight_sync_steps=1,
            token_budget=0,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=1,
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main(*sys.argv[1:])
