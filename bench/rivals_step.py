"""The rivals of `archer-native bench step`: whole training steps of TRL's GRPOTrainer.

  python bench/rivals_step.py --serve trl --model FOLDER --dtype bf16 --threads 1 --batch 4 --n 8
      reads `run` and `quit` on stdin, answers one JSON line each (docs/benchmarks.md)

  trl       float32 weights; with --dtype bf16 under autocast, TRL's own way (its default), and the one whose updates are not
            rounded away: what archer-native's bfloat16 with float32 masters is compared with.
  trl-bf16  weights, gradients and moments in bfloat16 (model_init_kwargs): faster and smaller, as weights need no conversion
            in every forward; but a learning rate of 1e-6 is then below the last bit of most weights.

One `run` is one optimizer step of Trainer.train(), from one on_step_begin to the next: prompts, generation, rewards, log-probs of
the reference model, forward, backward, clip, AdamW, and whatever the loop does besides. Before it is ready it trains three steps: one
to warm up, one with sdpa and one with eager attention, of which it takes the faster.
"""

import argparse
import ctypes
import os
import sys
import tempfile
import warnings

# Everything that is needed lies in the folder: nothing is asked of a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")

import datasets
import tokenizers
import torch
import transformers
import trl

from rivals_common import Phases, random_prompts, say, status_bytes


ATTENTIONS = ("sdpa", "eager")


def settings(options, folder):
    """Each with its reason, where it is not TRL's default or where that default matters."""
    responses = options.batch * options.n
    return trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        # The same step: one optimizer step on fresh responses, so neither side needs old log-probs of its own (TRL takes the
        # current ones); k3 against the reference model; the policy gradient on the fifth of the tokens with the highest
        # entropy; mean over all tokens; AdamW with the same decay.
        num_generations=options.n,
        max_completion_length=options.new_tokens,
        num_iterations=1,
        beta=0.001,
        top_entropy_quantile=0.2,
        loss_type="bnpo",
        temperature=1.0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        # All responses are generated at once. How many of them go through one forward and backward is a matter of memory.
        per_device_train_batch_size=options.responses_per_pass,
        gradient_accumulation_steps=responses // options.responses_per_pass,
        # TRL's default trades a fifth of the time for memory.
        gradient_checkpointing=False,
        bf16=options.dtype == "bf16" and options.serve == "trl",
        model_init_kwargs={
            "dtype": "bfloat16" if options.serve == "trl-bf16" else "float32",
        },
        # Nothing is written, printed or sent; prompts are four short lists, for which a worker process only costs.
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        log_completions=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        shuffle_dataset=False,
        max_steps=10**6,
        # Not used: use_vllm and use_liger_kernel need a GPU (Triton); torch_compile would compile anew for every length of the
        # cache, and TRL switches it off in generation.
    )


def tokenizer_of(vocabulary):
    """One word per id, the id itself: so prompts are given as ids, and decoding costs what it costs."""
    words = {str(i): i for i in range(vocabulary)}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="0"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="0", pad_token="0", padding_side="left", clean_up_tokenization_spaces=False
    )


def alternating(completions, **_):
    """0, 1, 0, 1, …: every group has both, so no advantage is 0."""
    return [float(i % 2) for i in range(len(completions))]


class Serve(transformers.TrainerCallback):
    """Chooses the attention, then waits for `run` before every step, and answers when the next one is about to begin."""

    def __init__(self, name, phases, details, trainer):
        self.name, self.phases, self.details = name, phases, details
        self.models = [model for model in (trainer.model, trainer.ref_model) if model is not None]
        self.left = [ATTENTIONS[0], *ATTENTIONS]
        self.seconds = {}
        self.is_running = False

    def use(self, attention):
        self.details["attention"] = attention
        for model in self.models:
            model.set_attn_implementation(attention)

    def on_step_begin(self, args, state, control, **_):
        if self.left:
            self.trial()
        else:
            self.serve()
        self.phases.begin()

    def trial(self):
        if "attention" in self.details:
            self.seconds[self.details["attention"]] = self.phases.end()["seconds"]
        self.use(self.left.pop(0))

    def serve(self):
        if self.is_running:
            say(event="run", **self.phases.end())
        else:
            self.seconds[self.details["attention"]] = self.phases.end()["seconds"]
            self.use(min(self.seconds, key=self.seconds.get))
            ctypes.CDLL(None).malloc_trim(0)  # what the trial has left in the heap is nobody's peak
            say(event="ready", protocol=1, name=self.name, details=self.details)
            self.is_running = True
        for line in sys.stdin:
            command = line.strip()
            if command == "run":
                return
            if command == "quit":
                break
            say(event="error", code="ARCHER_E_CONFIG", message=f"The command {command} is not known; send run or quit.")
        sys.exit(0)


def make(options, folder):
    transformers.set_seed(1)
    config = transformers.AutoConfig.from_pretrained(options.model)
    prompts = random_prompts(options.batch, options.prompt_tokens, config.vocab_size)
    rows = datasets.Dataset.from_dict({"prompt": [" ".join(map(str, ids)) for ids in prompts]})
    tokenizer = tokenizer_of(config.vocab_size)
    trainer = trl.GRPOTrainer(
        model=options.model,
        reward_funcs=alternating,
        args=settings(options, folder),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    # Nothing ends a response: the token that would is one like any other.
    trainer.eos_token_ids = [-1]
    for generation in (trainer.generation_config, trainer.model.generation_config):
        generation.eos_token_id = None
    trainer.generation_kwargs["eos_token_id"] = None
    return trainer


def measured(trainer, base, options):
    """Phases by wrapping the trainer's methods; the innermost one counts."""
    phases = Phases(base)
    phases.wrap(trainer, "_generate", "generate")
    phases.wrap(trainer, "_prepare_inputs", "score")
    phases.wrap(trainer, "training_step", "forward_backward")
    phases.wrap(trainer.accelerator, "clip_grad_norm_", "optimizer")
    generate = trainer._generate

    def checked(prompts):
        result = generate(prompts)
        lengths = {len(ids) for ids in result[1]}
        if len(result[1]) != options.batch * options.n or lengths != {options.new_tokens}:
            raise RuntimeError(f"{len(result[1])} responses of {lengths} tokens in place of {options.new_tokens}")
        return result

    trainer._generate = checked
    return phases


class OptimizerPhase(transformers.TrainerCallback):
    """The optimizer exists only when training begins."""

    def __init__(self, phases):
        self.phases = phases

    def on_train_begin(self, args, state, control, optimizer=None, model=None, **_):
        self.phases.wrap(optimizer, "step", "optimizer")
        self.phases.wrap(model, "zero_grad", "optimizer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=("trl", "trl-bf16"), default="trl")
    parser.add_argument("--model", required=True, help="a Hugging Face folder")
    parser.add_argument("--dtype", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4, help="prompts of one step")
    parser.add_argument("--n", type=int, default=8, help="responses to each prompt")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--responses-per-pass", type=int, default=0, help="responses in one forward and backward")
    options = parser.parse_args()
    options.responses_per_pass = options.responses_per_pass or options.batch * options.n
    torch.set_num_threads(options.threads)
    ctypes.CDLL(None).malloc_trim(0)
    base = status_bytes("VmRSS:")  # libraries; the model counts
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = make(options, folder)
            phases = measured(trainer, base, options)
            details = {
                "trl": trl.__version__,
                "transformers": transformers.__version__,
                "torch": torch.__version__,
                "responses_per_pass": options.responses_per_pass,
            }
            trainer.add_callback(OptimizerPhase(phases))
            trainer.add_callback(Serve(options.serve, phases, details, trainer))
            trainer.train()
    except Exception as error:
        say(event="error", code="ARCHER_E_INTERNAL", message=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
