"""Importance ratios of samples under the adapter that made them: what the server says of each token, against PyTorch in float32.

    ratios.py MODEL_DIR < samples.json

samples.json is [{"adapter": DIR, "temperature": T, "prompt": [ids], "tokens": [ids], "logprobs": {"MODE": [one per token]}}].
Prints {"MODE": {"tokens": N, "largest": the largest |ratio - 1|, "mean": their mean}} as JSON.
"""

import json
import math
import os
import sys

os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main(model_dir):
    # Each forward is small: threads would wait for each other.
    torch.set_num_threads(1)
    samples = json.load(sys.stdin)
    adapters = sorted({sample["adapter"] for sample in samples})
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    for adapter in adapters:
        if isinstance(model, PeftModel):
            model.load_adapter(adapter, adapter_name=name_of(adapter))
        else:
            model = PeftModel.from_pretrained(model, adapter, adapter_name=name_of(adapter))
    model.eval()
    distances = {}
    for sample in samples:
        scored = score(model, sample)
        for mode, told in sample["logprobs"].items():
            pairs = zip(scored, told, strict=True)
            distances.setdefault(mode, []).extend(abs(math.exp(ours - theirs) - 1) for ours, theirs in pairs)
    print(json.dumps({mode: summary(values) for mode, values in distances.items()}))


def name_of(adapter):
    """PEFT takes no dots in a name."""
    return os.path.basename(adapter).replace(".", "_")


@torch.no_grad()
def score(model, sample):
    """As the trainer does: of the logits divided by the temperature."""
    model.set_adapter(name_of(sample["adapter"]))
    prompt, tokens = sample["prompt"], sample["tokens"]
    logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    logprobs = (logits / sample["temperature"]).log_softmax(-1)
    return logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()


def summary(values):
    return {"tokens": len(values), "largest": max(values), "mean": sum(values) / len(values)}


if __name__ == "__main__":
    main(*sys.argv[1:])
