"""Rivals of the fused loss for `archer-native bench loss`: what people use now, written anew from the published algorithms.

  python bench/rivals_loss.py --serve naive --shape smollm2-512 --dtype bf16 --threads 1
      reads `run` and `quit` on stdin, answers one JSON line each (docs/benchmarks.md), as archer-bench-loss --serve does
  python bench/rivals_loss.py --check
      every rival against a float32 reference on a small shape

Every rival computes log-probabilities, entropies, the Archer loss (two clip ranges, dual clip, KL on knowledge tokens) and
the gradients of hidden states and head weight. Needs torch alone. The entropy is a metric here (the loss has no entropy
bonus), so no rival propagates a gradient through it. docs/benchmarks.md says what each of them is.
Legend: T tokens, R rows of a chunk, H hidden size, V vocabulary.
"""

import argparse
import ctypes
import math
import sys
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from rivals_common import reset_peak_memory, say, status_bytes

SHAPES = {"smollm2-512": (512, 576, 49152), "smollm2-2048": (2048, 576, 49152), "qwen-256": (256, 1536, 151936)}
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
RESPONSE_TOKENS = 256
LOGIT_DEVIATION = 3.0
CLIP = {"knowledge": 0.2, "reasoning": 0.5}
KL_COEF = {"knowledge": 0.001, "reasoning": 0.0}
CLIP_RATIO_C = 3.0
RHO = 0.8
TEMPERATURE = 1.0


@dataclass
class Batch:
    hidden: torch.Tensor  # [T, H], requires grad
    weight: torch.Tensor  # [V, H], requires grad
    ids: torch.Tensor  # [T]
    lengths: list  # of the responses
    advantages: torch.Tensor  # [T] float32, like all below
    old: torch.Tensor = None
    ref: torch.Tensor = None
    clip: torch.Tensor = None  # epsilon of the token's class
    kl_coef: torch.Tensor = None

    def token_losses(self, log_probs, rows=slice(None)):
        """Per-token loss / T for the tokens `rows`."""
        advantages, clip = self.advantages[rows], self.clip[rows]
        ratio = torch.exp(torch.clamp(log_probs - self.old[rows], -20, 20))
        clipped = torch.minimum(torch.maximum(ratio, 1 - clip), 1 + clip)
        pg = torch.maximum(-advantages * ratio, -advantages * clipped)
        pg = torch.where(advantages < 0, torch.minimum(pg, -advantages * CLIP_RATIO_C), pg)
        d = torch.clamp(self.ref[rows] - log_probs, -20, 20)
        kl = torch.clamp(torch.expm1(d) - d, -10, 10)
        return (pg + self.kl_coef[rows] * kl) / self.ids.numel()


# ---------------------------------------------------------------------------------------------------------------- rivals
# Each takes a batch, leaves the gradients in hidden.grad and weight.grad, and returns (loss, log_probs, entropies).


def naive_loss(batch):
    """Full logits, upcast, log_softmax, gather, entropy."""
    logits = F.linear(batch.hidden, batch.weight).float()
    log_softmax = F.log_softmax(logits, dim=-1)
    log_probs = log_softmax.gather(1, batch.ids[:, None])[:, 0]
    with torch.no_grad():
        entropies = -(log_softmax.exp() * log_softmax).sum(-1)
    return batch.token_losses(log_probs).sum(), log_probs, entropies


def naive(batch):
    """naive_loss with autograd."""
    loss, log_probs, entropies = naive_loss(batch)
    loss.backward()
    return loss.detach(), log_probs.detach(), entropies


def trl(batch):
    """TRL: selected logit minus logsumexp, one response at a time; entropies apart, 128 rows at a time."""
    logits = F.linear(batch.hidden, batch.weight).float()
    logits = logits / TEMPERATURE
    selected = logits.gather(1, batch.ids[:, None])[:, 0]
    log_probs = selected - torch.cat([part.logsumexp(-1) for part in logits.split(batch.lengths)])
    with torch.no_grad():
        entropies = []
        for rows in logits.split(128):
            log_softmax = F.log_softmax(rows, dim=-1)
            entropies.append(-(log_softmax.exp() * log_softmax).sum(-1))
    loss = batch.token_losses(log_probs).sum()
    loss.backward()
    return loss.detach(), log_probs.detach(), torch.cat(entropies)


class VerlHead(torch.autograd.Function):
    """verl's FusedLinearForPPO: 512 tokens at a time; the backward pass makes the logits again."""

    CHUNK = 512

    @staticmethod
    def logits(hidden_RH, weight):
        return ((hidden_RH @ weight.t()) / TEMPERATURE).float()

    @staticmethod
    def forward(ctx, hidden, weight, ids):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, ids)
        log_probs = hidden.new_empty(ids.numel())  # of the model's dtype, as there
        entropies = hidden.new_empty(ids.numel())
        for begin in range(0, ids.numel(), VerlHead.CHUNK):
            rows = slice(begin, begin + VerlHead.CHUNK)
            logits = VerlHead.logits(hidden[rows], weight)
            probs = logits.softmax(-1)
            log_probs[rows] = logits.log_softmax(-1).gather(1, ids[rows, None])[:, 0]
            entropies[rows] = logits.logsumexp(-1) - (probs * logits).sum(-1)
        return log_probs, entropies

    @staticmethod
    def backward(ctx, grad_log_probs, grad_entropies):
        assert grad_entropies is None, "the loss has no entropy bonus"
        hidden, weight, ids = ctx.saved_tensors
        grad_hidden, grad_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        for begin in range(0, ids.numel(), VerlHead.CHUNK):
            rows = slice(begin, begin + VerlHead.CHUNK)
            logits = VerlHead.logits(hidden[rows], weight)
            probs = logits.softmax(-1)
            one_hot = torch.zeros_like(logits).scatter_(1, ids[rows, None], 1)
            grad_logits = 0 + grad_log_probs[rows, None].float() * (one_hot - probs)
            grad_logits = grad_logits.to(hidden.dtype) / TEMPERATURE
            grad_hidden[rows] += grad_logits @ weight
            grad_weight += grad_logits.t() @ hidden[rows]
        return grad_hidden, grad_weight, None


def verl(batch):
    log_probs, entropies = VerlHead.apply(batch.hidden, batch.weight, batch.ids)
    loss = batch.token_losses(log_probs.float()).sum()
    loss.backward()
    return loss.detach(), log_probs.detach().float(), entropies.detach().float()


class LigerLogProbs(torch.autograd.Function):
    """Log-probabilities streamed over 4,096 ids at a time; backward makes the logits again, products in float32."""

    BLOCK = 4096

    @staticmethod
    def blocks(hidden, weight):
        for begin in range(0, weight.shape[0], LigerLogProbs.BLOCK):
            part = weight[begin : begin + LigerLogProbs.BLOCK]
            yield begin, part, (hidden @ part.t()).float().mul_(1 / TEMPERATURE)

    @staticmethod
    def local_ids(ids, begin, part):
        inside = (ids >= begin) & (ids < begin + part.shape[0])
        return (ids - begin).clamp(0, part.shape[0] - 1), inside

    @staticmethod
    def forward(ctx, hidden, weight, ids):
        every = torch.arange(ids.numel())
        largest = torch.full((ids.numel(),), -math.inf)
        total, weighted, selected = (torch.zeros(ids.numel()) for _ in range(3))
        for begin, part, logits in LigerLogProbs.blocks(hidden, weight):
            now = torch.maximum(largest, logits.amax(-1))
            rescale = torch.exp(largest - now)
            shifted = logits - now[:, None]
            exp = torch.exp(shifted)
            # The entropy, which Liger does not return and the same quantities need: sum of e^x x with the running maximum.
            moved = torch.where(total > 0, (largest - now) * total, 0)
            weighted = rescale * (weighted + moved) + (exp * shifted).sum(-1)
            total = total * rescale + exp.sum(-1)
            largest = now
            local, inside = LigerLogProbs.local_ids(ids, begin, part)
            selected += logits[every, local] * inside
        lse = largest + total.log()
        ctx.save_for_backward(hidden, weight, ids, lse)
        entropies = total.log() - weighted / total
        ctx.mark_non_differentiable(entropies)
        return selected - lse, entropies

    @staticmethod
    def backward(ctx, grad_log_probs, _):
        hidden, weight, ids, lse = ctx.saved_tensors
        every = torch.arange(ids.numel())
        grad_hidden = torch.zeros(hidden.shape)
        grad_weight = torch.zeros(weight.shape)
        for begin, part, logits in LigerLogProbs.blocks(hidden, weight):
            grad_logits = -grad_log_probs[:, None] * torch.exp(logits - lse[:, None])
            local, inside = LigerLogProbs.local_ids(ids, begin, part)
            grad_logits[every, local] += grad_log_probs * inside
            grad_logits.mul_(1 / TEMPERATURE)
            grad_hidden += grad_logits @ part.float()
            grad_weight[begin : begin + part.shape[0]] += grad_logits.t() @ hidden.float()
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), None


class LigerGrpo(torch.autograd.Function):
    """Liger's fused linear GRPO: one response at a time, gradients already in the forward pass."""

    @staticmethod
    def forward(ctx, hidden, weight, batch):
        grad_weight, grad_hidden, log_probs, entropies = torch.zeros_like(weight), [], [], []
        loss, begin = torch.zeros(()), 0
        for length in batch.lengths:
            rows = slice(begin, begin + length)
            begin += length
            with torch.enable_grad():
                hidden_RH, weight_VH = hidden[rows].detach().requires_grad_(), weight.detach().requires_grad_()
                part_log_probs, part_entropies = LigerLogProbs.apply(hidden_RH, weight_VH, batch.ids[rows])
                part_loss = batch.token_losses(part_log_probs, rows).sum()
                part_grad_hidden, part_grad_weight = torch.autograd.grad(part_loss, (hidden_RH, weight_VH))
            grad_weight += part_grad_weight
            grad_hidden.append(part_grad_hidden)
            log_probs.append(part_log_probs.detach())
            entropies.append(part_entropies)
            loss += part_loss.detach()
        ctx.save_for_backward(torch.cat(grad_hidden), grad_weight)
        log_probs, entropies = torch.cat(log_probs), torch.cat(entropies)
        ctx.mark_non_differentiable(log_probs, entropies)
        return loss, log_probs, entropies

    @staticmethod
    def backward(ctx, grad_loss, *_):
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_loss != 1:
            grad_hidden, grad_weight = grad_hidden * grad_loss, grad_weight * grad_loss
        return grad_hidden, grad_weight, None


def liger(batch):
    loss, log_probs, entropies = LigerGrpo.apply(batch.hidden, batch.weight, batch)
    loss.backward()
    return loss.detach(), log_probs, entropies


def checkpointed(batch):
    """256 tokens at a time, recomputed in the backward pass by torch's checkpointing."""

    def chunk(hidden_RH, weight, ids_R):
        log_softmax = F.log_softmax(F.linear(hidden_RH, weight).float(), dim=-1)
        with torch.no_grad():
            entropies = -(log_softmax.exp() * log_softmax).sum(-1)
        return log_softmax.gather(1, ids_R[:, None])[:, 0], entropies

    parts = [
        checkpoint(chunk, hidden_RH, batch.weight, ids_R, use_reentrant=False)
        for hidden_RH, ids_R in zip(batch.hidden.split(256), batch.ids.split(256))
    ]
    log_probs, entropies = (torch.cat(column) for column in zip(*parts))
    loss = batch.token_losses(log_probs).sum()
    loss.backward()
    return loss.detach(), log_probs.detach(), entropies.detach()


RIVALS = {"naive": naive, "trl": trl, "verl": verl, "liger": liger, "checkpointed": checkpointed}


# ------------------------------------------------------------------------------------------------------------------ data


def make_batch(tokens, hidden_size, vocabulary, dtype, response_tokens):
    """Inputs without the rollout's numbers. Weights are drawn in place: no float32 copy to account for."""
    random = torch.Generator().manual_seed(1)
    hidden = torch.empty(tokens, hidden_size, dtype=dtype).normal_(generator=random)
    weight = torch.empty(vocabulary, hidden_size, dtype=dtype)
    weight.normal_(0, LOGIT_DEVIATION / math.sqrt(hidden_size), generator=random)
    length = min(tokens, response_tokens)
    lengths = [min(length, tokens - begin) for begin in range(0, tokens, length)]
    signs = [(-1 if i % 2 else 1) * (0.2 + abs(torch.randn((), generator=random).item())) for i in range(len(lengths))]
    advantages = torch.tensor(signs).repeat_interleave(torch.tensor(lengths))
    ids = torch.randint(vocabulary, (tokens,), generator=random)
    return Batch(hidden.requires_grad_(), weight.requires_grad_(), ids, lengths, advantages)


@torch.no_grad()
def set_rollout(batch):
    """Old and reference log-probs beside the current ones; classes by the quantile of the rollout's entropies."""
    random = torch.Generator().manual_seed(2)
    log_probs, entropies = [], []
    for hidden_RH, ids_R in zip(batch.hidden.split(64), batch.ids.split(64)):
        log_softmax = F.log_softmax(F.linear(hidden_RH, batch.weight).float(), dim=-1)
        log_probs.append(log_softmax.gather(1, ids_R[:, None])[:, 0])
        entropies.append(-(log_softmax.exp() * log_softmax).sum(-1))
    log_probs, entropies = torch.cat(log_probs), torch.cat(entropies)
    batch.old = log_probs - 0.05 * torch.randn(log_probs.shape, generator=random)
    batch.ref = log_probs + 0.1 * torch.randn(log_probs.shape, generator=random)
    rollout = (entropies + 0.05 * torch.randn(entropies.shape, generator=random)).abs()
    reasoning = torch.cat([part >= part.quantile(RHO) for part in rollout.split(batch.lengths)])
    batch.clip = torch.where(reasoning, CLIP["reasoning"], CLIP["knowledge"])
    batch.kl_coef = torch.where(reasoning, KL_COEF["reasoning"], KL_COEF["knowledge"])


# ----------------------------------------------------------------------------------------------------------------- serve


def serve(options, shape):
    rival = RIVALS[options.serve]
    dtype = DTYPES[options.dtype]
    tiny = make_batch(8, 16, 64, dtype, 4)  # code pages and thread pools are nobody's extra memory
    set_rollout(tiny)
    rival(tiny)
    batch = make_batch(*shape, dtype, options.response_tokens)
    ctypes.CDLL(None).malloc_trim(0)
    base = status_bytes("VmRSS:")
    set_rollout(batch)
    gradient_bytes = sum(t.numel() * t.element_size() for t in (batch.hidden, batch.weight))
    say(event="ready", protocol=1, name=options.serve, details={"torch": torch.__version__})
    for line in sys.stdin:
        command = line.strip()
        if command == "quit":
            return
        if command != "run":
            say(event="error", code="ARCHER_E_CONFIG", message=f"The command {command} is not known; send run or quit.")
            continue
        batch.hidden.grad = batch.weight.grad = None
        peak_is_known = reset_peak_memory()
        began, cpu_began = time.perf_counter(), time.process_time()
        rival(batch)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
        # Gradients are nobody's extra memory: ours lie ready as well.
        peak = max(0, status_bytes("VmHWM:") - base - gradient_bytes) if peak_is_known else None
        say(event="run", seconds=seconds, cpu_seconds=cpu_seconds, peak_bytes=peak)


# ----------------------------------------------------------------------------------------------------------------- check


def relative_error(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def check(options):
    """Loss, log-probs, entropies and gradients of every rival against `naive` in float32 on the same numbers."""
    shape = SHAPES.get(options.shape) or parse_shape(options.shape)
    failed = False
    for dtype_name, dtype in DTYPES.items():
        batch = make_batch(*shape, dtype, options.response_tokens)
        set_rollout(batch)
        exact = Batch(**{**vars(batch), "hidden": batch.hidden.detach().float().requires_grad_(),
                         "weight": batch.weight.detach().float().requires_grad_()})
        exact_loss, exact_log_probs, exact_entropies = naive(exact)
        # bf16: logits rounded to bf16 shift log-probs by up to 2^-8 of |z|; verl also returns them in bf16.
        limits = (0.2, 0.2, 0.1) if dtype == torch.bfloat16 else (1e-4, 1e-4, 1e-4)
        for name, rival in RIVALS.items():
            batch.hidden.grad = batch.weight.grad = None
            loss, log_probs, entropies = rival(batch)
            errors = {
                "logp": (log_probs - exact_log_probs).abs().max().item(),
                "entropy": (entropies - exact_entropies).abs().max().item(),
                "grad_hidden": relative_error(batch.hidden.grad, exact.hidden.grad),
                "grad_weight": relative_error(batch.weight.grad, exact.weight.grad),
            }
            good = all(error <= limits[min(i, 2)] for i, error in enumerate(errors.values()))
            failed |= not good
            text = "  ".join(f"{key} {error:.2e}" for key, error in errors.items())
            print(f"{'ok  ' if good else 'FAIL'} {dtype_name:8} {name:13} loss {loss:.6f} ({exact_loss:.6f})  {text}")
    return 1 if failed else 0


def parse_shape(name):
    parts = name.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise SystemExit(f"The shape {name} is not known; use {', '.join(SHAPES)}, or tokens x hidden x vocabulary (8x16x50).")
    return tuple(int(part) for part in parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", choices=RIVALS, metavar="RIVAL", help=", ".join(RIVALS))
    parser.add_argument("--check", action="store_true", help="compare every rival with a float32 reference")
    parser.add_argument("--shape", help=f"{', '.join(SHAPES)}, or tokens x hidden x vocabulary")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--response-tokens", type=int, default=RESPONSE_TOKENS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.check:
        options.shape = options.shape or "600x64x10000"
        return check(options)
    if not options.serve:
        parser.error("one of --serve and --check is needed")
    serve(options, SHAPES.get(options.shape) or parse_shape(options.shape or "smollm2-512"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
