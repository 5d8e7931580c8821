"""The rivals of `archer-native bench update`: a transformers model with autograd around the naive loss.

  python bench/rivals_update.py --serve hf --model FOLDER --dtype bf16 --threads 1 --sequences 4 --tokens 256 --prompt-tokens 64
      reads `run` and `quit` on stdin, answers one JSON line each (docs/benchmarks.md)

hf: float32 weights and gradients, bfloat16 autocast (for float32: none). hf-bf16: weights and gradients in bfloat16.
Sequences of one length as a dense batch (no padding), the head over the states that predict a response token alone, no
checkpointing, no cache. The attention implementation is the faster one of sdpa and eager in a trial.
"""

import argparse
import contextlib
import ctypes
import os
import sys
import time

# Everything that is needed lies in the folder: nothing is asked of a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers

from rivals_common import random_prompts, reset_peak_memory, say, status_bytes
from rivals_loss import Batch, naive_loss, set_rollout

DTYPES = ("bf16", "float32")
RIVALS = ("hf", "hf-bf16")
ATTENTIONS = ("sdpa", "eager")


class MicroBatch:
    def __init__(self, options, vocabulary, sequences, tokens):
        self.prompt_tokens = options.prompt_tokens
        self.ids = torch.tensor(random_prompts(sequences, tokens, vocabulary))
        responses = self.ids[:, self.prompt_tokens :]
        length = responses.shape[1]
        signs = torch.tensor([1.0, -1.0]).repeat(sequences)[:sequences]
        self.loss = Batch(None, None, responses.flatten(), [length] * sequences, signs.repeat_interleave(length))


class HuggingFace:
    def __init__(self, options):
        rounded = options.dtype == "bf16" and options.serve == "hf-bf16"
        dtype = torch.bfloat16 if rounded else torch.float32
        self.autocasts = options.dtype == "bf16" and not rounded
        self.model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).train()
        self.micro_batch = MicroBatch(options, self.model.config.vocab_size, options.sequences, options.tokens)
        self.attention = self.faster_attention()

    def compute_dtype(self):
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.autocasts else contextlib.nullcontext()

    def hidden(self, micro_batch):
        hidden = self.model.model(input_ids=micro_batch.ids, use_cache=False).last_hidden_state
        return hidden[:, micro_batch.prompt_tokens - 1 : -1].flatten(0, 1)

    def forward_backward(self, micro_batch):
        batch = micro_batch.loss
        with self.compute_dtype():
            batch.hidden, batch.weight = self.hidden(micro_batch), self.model.lm_head.weight
            loss, _, _ = naive_loss(batch)
        loss.backward()
        batch.hidden = batch.weight = None

    def set_rollout(self, micro_batch):
        batch = micro_batch.loss
        with torch.no_grad(), self.compute_dtype():
            batch.hidden, batch.weight = self.hidden(micro_batch), self.model.lm_head.weight
            set_rollout(batch)
        batch.hidden = batch.weight = None

    def faster_attention(self):
        seconds = {}
        for name in ATTENTIONS:
            self.model.set_attn_implementation(name)
            self.set_rollout(self.micro_batch)
            began = time.perf_counter()
            self.forward_backward(self.micro_batch)
            seconds[name] = time.perf_counter() - began
            self.model.zero_grad(set_to_none=True)
        fastest = min(seconds, key=seconds.get)
        self.model.set_attn_implementation(fastest)
        return fastest

    def run(self):
        self.forward_backward(self.micro_batch)

    def details(self):
        versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        return {**versions, "attention": self.attention}


def serve(options):
    rival = HuggingFace(options)
    parameters = list(rival.model.parameters())
    gradient_bytes = sum(t.numel() * t.element_size() for t in parameters)
    ctypes.CDLL(None).malloc_trim(0)
    base = status_bytes("VmRSS:")
    say(event="ready", protocol=1, name=options.serve, details=rival.details())
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        if command != "run":
            say(event="error", code="ARCHER_E_CONFIG", message=f"The command {command} is not known; send run or quit.")
            continue
        rival.model.zero_grad(set_to_none=True)
        peak_is_known = reset_peak_memory()
        began, cpu_began = time.perf_counter(), time.process_time()
        rival.run()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        # Gradients are nobody's extra memory: ours lie ready as well.
        peak = max(0, status_bytes("VmHWM:") - base - gradient_bytes) if peak_is_known else None
        say(event="run", seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=RIVALS, default="hf")
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256, help="of each sequence, its prompt included")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        serve(options)
    except Exception as error:
        say(event="error", code="ARCHER_E_INTERNAL", message=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
