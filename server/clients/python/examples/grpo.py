"""GRPO with a LoRA in plain PyTorch and PEFT: every step pushes the adapter from memory and samples from it at once.

    pip install . torch transformers peft
    npm start -- --model MODEL --dtype float32 --admin-token-file token                 # in the repository, in another shell
    python examples/grpo.py --model MODEL --token-file token

The model computes in float32 here, and so does the server: in bfloat16 the two round apart, and ratios are some per cent
from 1 before anything was learned. The reward is the share of the letter e. It prints reward, KL to the base, the largest distance of an importance ratio from
1 before the first update, and what the push took; it ends with 1 where the reward did not grow, and at once where a token
was made by other weights than those just pushed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import urllib.request
from dataclasses import dataclass

import torch
from lorikeet import Client, Pushed
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

NAME = "policy"
WORDS = "the sea green tree some where never letter city name tickets songs all from list".split()
TEMPERATURE = 0.9
PROMPTS, GROUP, MAX_TOKENS = 4, 8, 16
EPOCHS, CLIP, KL_WEIGHT, LEARNING_RATE = 2, 0.2, 0.02, 2e-3


@dataclass
class Sample:
    prompt: list[int]
    tokens: list[int]
    text: str
    #: Of each token: under what it was drawn from, and under the base with the same parameters.
    logprobs: list[float]
    base_logprobs: list[float]
    advantage: float = 0.0

    @property
    def reward(self) -> float:
        return self.text.count("e") / max(len(self.text), 1)

    @property
    def kl(self) -> float:
        return sum(a - b for a, b in zip(self.logprobs, self.base_logprobs))


def sample(url: str, prompt: list[int], pushed: Pushed, seed: int) -> list[Sample]:
    """A group of answers of exactly the revision just pushed."""
    lora = pushed.expect["lora"] | {"base_logprobs": True}
    body = {
        "model": NAME, "prompt": prompt, "n": GROUP, "max_tokens": MAX_TOKENS, "temperature": TEMPERATURE, "seed": seed,
        "logprobs": 0, "logprobs_mode": "processed", "return_token_ids": True, "lora": lora,
    }  # fmt: skip
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=300) as reply:
        answer = json.load(reply)
    samples = []
    for choice in answer["choices"]:
        spans = [(span["from"], span["revision"]) for span in choice["lora"]["spans"]]
        if spans != [(0, pushed.revision)]:
            sys.exit(f"Expected all tokens of {pushed.revision} but received {spans}")
        samples.append(
            Sample(
                prompt=prompt,
                tokens=choice["token_ids"],
                text=choice["text"],
                logprobs=choice["logprobs"]["token_logprobs"],
                base_logprobs=choice["lora"]["base_logprobs"],
            )
        )
    return samples


def advantages(group: list[Sample]) -> None:
    """Reward less the KL term, relative to the group (GRPO, Shao et al. 2024)."""
    returns = [sample.reward - KL_WEIGHT * sample.kl / max(len(sample.tokens), 1) for sample in group]
    mean, deviation = statistics.fmean(returns), statistics.pstdev(returns)
    for one, value in zip(group, returns):
        one.advantage = (value - mean) / (deviation + 1e-4)


def logprobs_of(model: torch.nn.Module, samples: list[Sample]) -> list[torch.Tensor]:
    """The trainer's own log-probabilities of the samples' tokens at the temperature of sampling."""
    lengths = [len(one.prompt) + len(one.tokens) for one in samples]
    ids = torch.zeros(len(samples), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(samples):
        ids[row, : lengths[row]] = torch.tensor(one.prompt + one.tokens)
        mask[row, : lengths[row]] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits.float() / TEMPERATURE
    every = torch.log_softmax(logits[:, :-1], dim=-1).gather(-1, ids[:, 1:, None])[..., 0]
    return [every[row, len(one.prompt) - 1 : lengths[row] - 1] for row, one in enumerate(samples)]


def loss_of(model: torch.nn.Module, samples: list[Sample]) -> tuple[torch.Tensor, float]:
    """The clipped objective of PPO over all tokens, and how far a ratio is from 1 at most."""
    losses, furthest = [], 0.0
    for one, logprobs in zip(samples, logprobs_of(model, samples)):
        ratio = torch.exp(logprobs - torch.tensor(one.logprobs))
        clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
        losses.append(-torch.minimum(ratio * one.advantage, clipped * one.advantage))
        furthest = max(furthest, (ratio - 1).abs().max().item())
    return torch.cat(losses).mean(), furthest


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the base's folder, the server's too")
    parser.add_argument("--admin", default="http://127.0.0.1:8001", help="the server's admin API")
    parser.add_argument("--serving", default="http://127.0.0.1:8000", help="its serving API")
    parser.add_argument("--token-file", required=True)
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    base = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    projections = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules=projections, task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=LEARNING_RATE)
    client = Client(given.admin, token_file=given.token_file)
    random = torch.Generator().manual_seed(0)

    rewards = []
    for step in range(given.steps):
        began = time.perf_counter()
        # The first one has B = 0: it is the base still.
        pushed = client.push(NAME, model, step=step, allow_zero_effect=step == 0)
        push_ms = 1000 * (time.perf_counter() - began)
        samples = []
        for index in range(PROMPTS):
            words = [WORDS[i] for i in torch.randint(len(WORDS), (4,), generator=random)]
            prompt = tokenizer(" ".join(words))["input_ids"]
            group = sample(given.serving, prompt, pushed, seed=step * PROMPTS * GROUP + index * GROUP)
            advantages(group)
            samples += group
        first_furthest = 0.0
        for epoch in range(EPOCHS):
            loss, furthest = loss_of(model, samples)
            first_furthest = furthest if epoch == 0 else first_furthest
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        rewards.append(statistics.fmean(one.reward for one in samples))
        tokens = sum(len(one.tokens) for one in samples)
        kl = sum(one.kl for one in samples) / tokens
        print(
            f"step {step:3d}  {pushed.revision[7:15]}  reward {rewards[-1]:.3f}  KL per token {kl:+.3f}  "
            f"ratio within {first_furthest:.1e} of 1  push {push_ms:.0f} ms",
            flush=True,
        )

    third = max(len(rewards) // 3, 2)
    first, last = rewards[:third], rewards[-third:]
    error = math.hypot(standard_error(first), standard_error(last))
    gain = statistics.fmean(last) - statistics.fmean(first)
    print(f"reward {statistics.fmean(first):.3f} -> {statistics.fmean(last):.3f}: {gain / error:.1f} standard errors")
    if gain < 2 * error:
        sys.exit(1)


if __name__ == "__main__":
    main()
