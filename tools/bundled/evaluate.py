"""Measure a model folder on the splits: avg@n at T=1, greedy accuracy, form, length.

    python evaluate.py --model ../../assets/model --task ../../assets/task
"""
import argparse
import json
import os
import re
import statistics
import time
from collections import Counter

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

MAX_NEW = 128
BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@torch.no_grad()
def sample(model, prompts, pad, eos, greedy=False, generator=None, batch=256):
    """Token lists (with the closing eos, where it came within MAX_NEW) for `prompts`."""
    out = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for lo in range(0, len(order), batch):
        rows = order[lo:lo + batch]
        width = max(len(prompts[i]) for i in rows)
        ids = torch.tensor([[pad] * (width - len(prompts[i])) + prompts[i] for i in rows])
        mask = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i])
                             for i in rows])
        cache, got = DynamicCache(config=model.config), [[] for _ in rows]
        live = list(range(len(rows)))
        for _ in range(MAX_NEW):
            position = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1]:]
            logits = model(input_ids=ids, attention_mask=mask, position_ids=position,
                           past_key_values=cache, logits_to_keep=1).logits[:, -1].float()
            token = (logits.argmax(-1) if greedy else
                     torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0])
            keep = []
            for j, t in enumerate(token.tolist()):
                got[live[j]].append(t)
                if t != eos:
                    keep.append(j)
            if not keep:
                break
            if len(keep) < 0.8 * len(live) or len(keep) < len(live) <= 8:
                # Enough rows are finished to be worth dropping from the batch.
                index = torch.tensor(keep)
                cache.batch_select_indices(index)
                live = [live[j] for j in keep]
                token, mask = token[index], mask[index]
            ids = token[:, None]
            mask = torch.cat([mask, torch.ones(len(live), 1, dtype=mask.dtype)], 1)
        for i, tokens in zip(rows, got):
            end = tokens.index(eos) + 1 if eos in tokens else len(tokens)
            out[i] = tokens[:end]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="assets/model")
    parser.add_argument("--task", default="assets/task")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=int, default=2, help="responses to print")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tok = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16).eval()
    pad, eos = tok.pad_token_id, tok.eos_token_id
    for split in ("test", "hard"):
        rows = [json.loads(line) for line in open(os.path.join(args.task, split + ".jsonl"))]
        prompts = [tok.apply_chat_template([{"role": "user", "content": r["prompt"]}],
                                           add_generation_prompt=True, tokenize=True,
                                           return_dict=False) for r in rows]
        start = time.time()
        generator = torch.Generator().manual_seed(args.seed)
        many = sample(model, [p for p in prompts for _ in range(args.n)], pad, eos,
                      generator=generator)
        one = sample(model, prompts, pad, eos, greedy=True)

        def boxed(tokens):
            if tokens[-1] != eos:
                return None
            found = BOXED.findall(tok.decode(tokens))
            return found[-1] if found else None

        answers = [boxed(t) for t in many]
        right = [a == rows[i // args.n]["answer"] for i, a in enumerate(answers)]
        greedy = [boxed(t) == r["answer"] for t, r in zip(one, rows)]
        length = [len(t) for t in many]
        said = Counter(a for a in answers if a is not None).most_common(1)[0]
        true = Counter(r["answer"] for r in rows).most_common(1)[0]
        solved = sum(any(right[i:i + args.n]) for i in range(0, len(right), args.n))
        print(json.dumps({
            "split": split, "problems": len(rows),
            f"avg@{args.n}": round(100 * sum(right) / len(right), 2),
            f"pass@{args.n}": round(100 * solved / len(rows), 2),
            "greedy": round(100 * sum(greedy) / len(rows), 2),
            "well_formed": round(100 * sum(a is not None for a in answers) / len(answers), 2),
            "tokens_median": statistics.median(length), "tokens_mean":
            round(statistics.mean(length), 1), "tokens_max": max(length),
            "top_answer_true": [true[0], round(100 * true[1] / len(rows), 2)],
            "top_answer_said": [said[0], round(100 * said[1] / len(answers), 2)],
            "seconds": round(time.time() - start, 1)}), flush=True)
        for t, ok in list(zip(many, right))[:args.show]:
            print(f"  [{'right' if ok else 'wrong'}] {tok.decode(t)!r}")


if __name__ == "__main__":
    main()
