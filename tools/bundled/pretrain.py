"""Pre-train the bundled model on the crowd's solutions (make_task.corpus).

    python pretrain.py --out ../../assets/model

Writes a Hugging Face folder (bf16 weights). Deterministic up to the time box and to
the floating-point order of the machine; --steps replaces the time box.
"""
import argparse
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import make_task

VOCAB = 384
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
PAD, BOS, END, _, USER, ASSISTANT = range(6)
MAX_POSITIONS = 512
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def train_tokenizer(texts):
    """Byte-level BPE: the 256 bytes make any text encodable, the merges are the words
    of the corpus. Digits and operators never merge, so every figure is one token."""
    tok = Tokenizer(models.BPE())
    isolate = pre_tokenizers.Split(pattern=Regex(r"[^A-Za-z \\]"),
                                   behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([isolate, byte_level])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    # The merges hold letters only, so the usual pre-tokenizer does for encoding.
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level])
    return tok


def make_model(vocab):
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=256, intermediate_size=640, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=64,
        max_position_embeddings=MAX_POSITIONS, rms_norm_eps=1e-6,
        tie_word_embeddings=True, use_cache=True,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=END,
        attn_implementation="eager"))


def pack(tok, docs, length):
    """Documents end to end in rows of `length` tokens, the tightest fit among the last
    few open rows; a row begins with a document and ends with padding. The loss is on
    the responses (and the <|end|> that closes each)."""
    rows, open_rows = [], []
    for prompt, response, _ in docs:
        p = [BOS, USER] + tok.encode(prompt).ids + [END, ASSISTANT]
        r = tok.encode(response).ids + [END]
        size = len(p) + len(r)
        fits = [row for row in open_rows if len(row[0]) + size <= length]
        if fits:
            row = max(fits, key=lambda row: len(row[0]))
        else:
            row = ([], [])
            rows.append(row)
            open_rows = (open_rows + [row])[-50:]
        row[0].extend(p + r)
        row[1].extend([0] * len(p) + [1] * len(r))
    ids = np.full((len(rows), length), PAD, np.int16)
    keep = np.zeros((len(rows), length), bool)
    for i, (tokens, mask) in enumerate(rows):
        ids[i, :len(tokens)] = tokens
        keep[i, :len(mask)] = mask
    return ids, keep


def write(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def save(model, tok, out):
    os.makedirs(out, exist_ok=True)
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out)
    os.chmod(os.path.join(out, "model.safetensors"), 0o644)
    write(os.path.join(out, "generation_config.json"), {
        "bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD, "do_sample": True,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 128})
    # Spell out two keys the way readers other than the newest transformers expect them.
    path = os.path.join(out, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    config["torch_dtype"] = "bfloat16"
    write(path, config)
    tok.save(os.path.join(out, "tokenizer.json"))
    write(os.path.join(out, "tokenizer_config.json"), {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_POSITIONS,
        "bos_token": SPECIAL[BOS], "eos_token": SPECIAL[END], "pad_token": SPECIAL[PAD],
        "additional_special_tokens": [SPECIAL[i] for i in (3, 4, 5)],
        "add_bos_token": False, "add_eos_token": False,
        "clean_up_tokenization_spaces": False, "padding_side": "left",
        "chat_template": CHAT_TEMPLATE})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="assets/model")
    parser.add_argument("--docs", type=int, default=160_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--steps", type=int, help="instead of the time box")
    parser.add_argument("--rows", type=int, default=40, help="packed rows per step")
    parser.add_argument("--length", type=int, default=192)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--no-compile", action="store_true",
                        help="half the speed, but needs no C++ compiler")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)

    _, held_out = make_task.draw()
    stream = make_task.corpus(args.seed, held_out)
    docs = [next(stream) for _ in range(args.docs)]
    overlap = sum(make_task.canonical(make_task.parse(p)) in held_out for p, *_ in docs)
    tok = train_tokenizer(t for p, r, _ in docs[:20000] for t in (p, r))
    ids, mask = pack(tok, docs, args.length)
    right = sum(ok for *_, ok in docs)
    tokens = int((ids != PAD).sum())
    print(f"corpus: {len(docs)} documents, {tokens} tokens, {int(mask.sum())} in responses, "
          f"{100 * right / len(docs):.1f} % boxed the right answer, "
          f"{len(ids)} rows, {100 * tokens / ids.size:.1f} % full, "
          f"{overlap} problems shared with the splits", flush=True)
    del docs

    model = make_model(tok.get_vocab_size())
    count = sum(p.numel() for p in model.parameters())
    print(f"model: {count} parameters, vocabulary {tok.get_vocab_size()}", flush=True)
    # bf16 working copy with fp32 master weights: on CPUs with AMX this is much faster
    # than autocast, and the weights are published in bf16 anyway.
    master = [p.detach().clone() for p in model.parameters()]
    model = model.to(torch.bfloat16)
    decay = [m for m in master if m.dim() > 1]
    plain = [m for m in master if m.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1},
                                   {"params": plain, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), fused=True)
    @torch.compile(disable=args.no_compile)
    def loss_of(x, target):
        hidden = model.model(input_ids=x, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden).float()
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))

    order_rng = np.random.default_rng(args.seed)
    order, at, step, start, log = order_rng.permutation(len(ids)), 0, 0, time.time(), []
    epochs = 0
    while True:
        done = (step / args.steps if args.steps else (time.time() - start) / 60 / args.minutes)
        if done >= 1:
            break
        # Warm up, hold, then decay linearly over the last 40 %.
        lr = args.lr * min(1, (step + 1) / 100, max(0.01, (1 - done) / 0.4))
        for group in optimizer.param_groups:
            group["lr"] = lr
        if at + args.rows > len(order):
            order, at, epochs = order_rng.permutation(len(ids)), 0, epochs + 1
        pick = order[at:at + args.rows]
        at += args.rows
        x = torch.from_numpy(ids[pick].astype(np.int64))
        target = x[:, 1:].masked_fill(~torch.from_numpy(mask[pick])[:, 1:], -100)
        loss = loss_of(x, target)
        loss.backward()
        grads = []
        for p, m in zip(model.parameters(), master):
            m.grad = p.grad.float()
            p.grad = None
            grads.append(m.grad)
        norm = torch.nn.utils.get_total_norm(grads)
        scale = min(1.0, 1.0 / (float(norm) + 1e-6))
        for g in grads:
            g.mul_(scale)
        optimizer.step()
        with torch.no_grad():
            for p, m in zip(model.parameters(), master):
                p.copy_(m)
        step += 1
        log.append(loss.item())
        if step % 50 == 0:
            spent = time.time() - start
            print(f"step {step} loss {np.mean(log[-50:]):.4f} lr {lr:.2e} norm {norm:.2f} "
                  f"{step * args.rows * args.length / spent:.0f} tok/s {spent / 60:.1f} min",
                  flush=True)
    print(f"trained: {step} steps of {args.rows} x {args.length} tokens, "
          f"{epochs + at / len(order):.2f} epochs, last loss {np.mean(log[-50:]):.4f}")
    with torch.no_grad():
        for p, m in zip(model.parameters(), master):
            p.copy_(m)
    save(model, tok, args.out)


if __name__ == "__main__":
    main()
