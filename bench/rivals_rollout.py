"""The rival of `archer-native bench rollout` that needs Python: transformers' generate.

  python bench/rivals_rollout.py --serve hf --model FOLDER --dtype bf16 --threads 1 --batch 8
      reads `run` and `quit` on stdin, answers one JSON line each (docs/benchmarks.md)

Settings: sampling at temperature 1 from the whole vocabulary, a cache of keys and values, nothing that ends a response, random
prompts of one length (so no padding), no gradients. The attention implementation is the faster one of sdpa and eager in a trial.
"""

import argparse
import ctypes
import os
import sys
import time

# Everything that is needed lies in the folder: nothing is asked of a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers

from rivals_common import reset_peak_memory, say, status_bytes

DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
ATTENTIONS = ("sdpa", "eager")
TRIAL_TOKENS = 16


class HuggingFace:
    def __init__(self, options):
        self.options = options
        self.model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=DTYPES[options.dtype]).eval()
        random = torch.Generator().manual_seed(1)
        shape = (options.batch, options.prompt_tokens)
        self.prompts = torch.randint(self.model.config.vocab_size, shape, generator=random)
        self.mask = torch.ones_like(self.prompts)
        self.attention = self.faster_attention()

    def generate(self, new_tokens):
        settings = transformers.GenerationConfig(
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True, max_new_tokens=new_tokens, pad_token_id=0
        )
        # Read from the model's own settings where they are not overruled: then a response could end early.
        self.model.generation_config.eos_token_id = None
        with torch.inference_mode():
            ids = self.model.generate(self.prompts, attention_mask=self.mask, generation_config=settings)
        new = ids.shape[1] - self.options.prompt_tokens
        if ids.shape[0] != self.options.batch or new != new_tokens:
            raise RuntimeError(f"generate returned {ids.shape[0]} x {new} tokens in place of {self.options.batch} x {new_tokens}")

    def faster_attention(self):
        seconds = {}
        for name in ATTENTIONS:
            self.model.set_attn_implementation(name)
            self.generate(2)
            began = time.perf_counter()
            self.generate(min(TRIAL_TOKENS, self.options.new_tokens))
            seconds[name] = time.perf_counter() - began
        fastest = min(seconds, key=seconds.get)
        self.model.set_attn_implementation(fastest)
        return fastest

    def run(self):
        torch.manual_seed(2)
        self.generate(self.options.new_tokens)

    def details(self):
        versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        return {**versions, "attention": self.attention}


RIVALS = {"hf": HuggingFace}


def serve(options):
    ctypes.CDLL(None).malloc_trim(0)
    base = status_bytes("VmRSS:")  # libraries; the model counts
    rival = RIVALS[options.serve](options)
    say(event="ready", protocol=1, name=options.serve, details=rival.details())
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        if command != "run":
            say(event="error", code="ARCHER_E_CONFIG", message=f"The command {command} is not known; send run or quit.")
            continue
        peak_is_known = reset_peak_memory()
        began, cpu_began = time.perf_counter(), time.process_time()
        rival.run()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        peak = max(0, status_bytes("VmHWM:") - base) if peak_is_known else None
        say(event="run", seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=RIVALS, default="hf")
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="sequences that are sampled together")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
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
