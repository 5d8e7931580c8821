#!/usr/bin/env python3
"""Writes the golden models: test/golden/models/<name>/ and their list, test/golden/model-goldens.json.

Each is a tiny random Hugging Face folder with the logits that transformers computes for it in float32 (eager attention).
Weights are scaled until the logits spread (std >= 3), norms and biases are random, and every feature of a case is
switched off once to show that the logits notice: a reader that forgot it could not pass.

    python3 -m venv venv && venv/bin/pip install -r tools/goldens/requirements.txt
    venv/bin/python tools/goldens/make_model_goldens.py
"""

import json
import math
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

GOLDEN = Path(__file__).resolve().parents[2] / "test" / "golden"
MIN_STD = 3.0
MIN_CHANGE = 1e-2
TOLERANCE = 1e-4  # float32 sums in another order, on logits of up to 15
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SHAPE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=64, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
# 48 tokens reach three times beyond these 16 positions, where slow, blended and fast frequencies all differ.
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=16)
PLAIN_ROPE = dict(rope_type="default", rope_theta=10000.0)


def case(name, config, style="transformers-5", dtype="float32", max_shard_size="10GB"):
    return dict(name=name, config=config, style=style, dtype=dtype, max_shard_size=max_shard_size)


def cases():
    llama = LlamaConfig(**SHAPE, rope_parameters=LLAMA3_ROPE, tie_word_embeddings=False)
    biased = LlamaConfig(**SHAPE | dict(head_dim=12), rope_parameters=PLAIN_ROPE, attention_bias=True, mlp_bias=True,
                         tie_word_embeddings=True)
    qwen2 = Qwen2Config(**SHAPE, rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                        tie_word_embeddings=True)
    qwen3 = Qwen3Config(**SHAPE, head_dim=16, rope_parameters=PLAIN_ROPE, tie_word_embeddings=False)
    return [
        case("llama-rope-scaling", llama),
        case("llama-hub-style", llama, style="hub"),
        case("llama-biases-tied", biased, style="hub"),
        case("qwen2-tied", qwen2),
        case("qwen2-hub-bfloat16", qwen2, style="hub", dtype="bfloat16"),
        case("qwen3", qwen3),
        case("qwen3-sharded", qwen3, max_shard_size="60KB"),
        case("qwen3-float16", qwen3, dtype="float16"),
    ]


def random_model(config, dtype, seed):
    """Weights of the dtype's precision, computed with in float32."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                value = 0.5 + torch.rand(parameter.shape)
            elif name.endswith("bias"):
                value = 0.5 * torch.randn(parameter.shape)
            elif "embed_tokens" in name or "lm_head" in name:
                value = torch.randn(parameter.shape) * 4 / math.sqrt(config.hidden_size)
            else:
                value = torch.randn(parameter.shape) * 1.5 / math.sqrt(parameter.shape[1])
            parameter.copy_(value.to(dtype).float())
    return model


def logits_of(model, sequences):
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0].float() for ids in sequences]


def swap_query_heads(model):
    """Queries 1 and 2 trade places, and with them the key/value head that they read: a wrong grouping."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    order = torch.arange(config.num_attention_heads * head_dim).view(-1, head_dim)[[0, 2, 1, 3]].flatten()
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.q_proj.weight.copy_(attention.q_proj.weight[order].clone())
        if attention.q_proj.bias is not None:
            attention.q_proj.bias.copy_(attention.q_proj.bias[order].clone())
        attention.o_proj.weight.copy_(attention.o_proj.weight[:, order].clone())


def fill(model, part, value):
    for name, parameter in model.named_parameters():
        if part(name):
            parameter.fill_(value)


def variants(config):
    """What a faulty reader might leave out: feature -> a change of a fresh copy of the model."""
    found = {
        "normWeights": lambda model: fill(model, lambda name: "layernorm" in name or name == "model.norm.weight", 1.0),
        "grouping": swap_query_heads,
    }
    if config.model_type == "qwen2" or getattr(config, "attention_bias", False):
        suffixes = ("q_proj.bias", "k_proj.bias", "v_proj.bias")
        found["qkvBias"] = lambda model: fill(model, lambda name: name.endswith(suffixes), 0.0)
    if getattr(config, "attention_bias", False):
        found["outputBias"] = lambda model: fill(model, lambda name: name.endswith("o_proj.bias"), 0.0)
    if getattr(config, "mlp_bias", False):
        found["mlpBias"] = lambda model: fill(model, lambda name: ".mlp." in name and name.endswith("bias"), 0.0)
    if config.model_type == "qwen3":
        found["qkNorm"] = lambda model: [setattr(layer.self_attn, norm, torch.nn.Identity())
                                         for layer in model.model.layers for norm in ("q_norm", "k_norm")]
    return found


def check(item, logits, seed, sequences):
    """The names of the features whose absence the logits show; fails where they would not."""
    config, dtype = item["config"], DTYPES[item["dtype"]]
    std = torch.cat(logits).std().item()
    assert std >= MIN_STD, f"{item['name']}: the logits' std is {std:.2f}"
    changes = {}
    for feature, change in variants(config).items():
        model = random_model(config, dtype, seed)
        with torch.no_grad():
            change(model)
        changes[feature] = difference(logits_of(model, sequences), logits)
    if config.rope_parameters["rope_type"] != "default":
        plain = config.__class__(**config.to_dict() | dict(rope_parameters=PLAIN_ROPE))
        changes["ropeScaling"] = difference(logits_of(random_model(plain, dtype, seed), sequences), logits)
    for feature, change in changes.items():
        assert change > MIN_CHANGE, f"{item['name']}: without {feature} the logits change by {change:.1e} only"
    print(f"{item['name']}: std {std:.2f}; without " + ", ".join(f"{f} {c:.2g}" for f, c in changes.items()))
    return sorted(changes)


def difference(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b))


def hub_style(path):
    """config.json as the hub has it: rope_theta and rope_scaling, torch_dtype."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def tokenizer(vocab_size):
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, vocab_size)}
    special = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return dict(version="1.0", truncation=None, padding=None, normalizer=None, post_processor=None, decoder=None,
                added_tokens=[dict(id=i, content=t) | special for t, i in vocab.items() if i < 3],
                pre_tokenizer=dict(type="Whitespace"), model=dict(type="WordLevel", vocab=vocab, unk_token="<pad>"))


def write(item, seed):
    config, name, dtype = item["config"], item["name"], DTYPES[item["dtype"]]
    folder = GOLDEN / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(seed)
    sequences = [torch.randint(3, config.vocab_size, (n,), generator=generator).tolist() for n in (48, 1, 17)]
    model = random_model(config, dtype, seed)
    logits = logits_of(model, sequences)
    features = check(item, logits, seed, sequences)
    model.to(dtype).save_pretrained(folder, max_shard_size=item["max_shard_size"])
    if item["style"] == "hub":
        hub_style(folder / "config.json")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(config.vocab_size), indent=1) + "\n")

    # What lies on disk now, read by transformers, gives the logits that are recorded.
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    assert difference(logits_of(again, sequences), logits) == 0, name
    assert json.loads((folder / "config.json").read_text()).keys() & {"dtype", "torch_dtype"} == {
        "torch_dtype" if item["style"] == "hub" else "dtype"}
    shards = len(list(folder.glob("*.safetensors")))
    assert (shards > 1) == (name.endswith("sharded")), f"{name}: {shards} weight files"
    save_file({f"logits.{i}": rows.contiguous() for i, rows in enumerate(logits)}, folder / "logits.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 150_000, f"{name}: {size} bytes"
    return dict(name=name, folder=f"models/{name}", configStyle=item["style"], storedDtype=item["dtype"],
                features=features, sequences=sequences, logits=f"models/{name}/logits.safetensors",
                tolerance=TOLERANCE)


def main():
    torch.set_num_threads(1)
    golden = dict(
        generatedBy="tools/goldens/make_model_goldens.py",
        versions=dict(torch=torch.__version__.split("+")[0], transformers=transformers.__version__),
        about="logits.N [tokens, vocabulary] of sequence N, float32 arithmetic on the stored weights; leaving out any "
              "of a case's features changes some logit by more than minChange",
        minChange=MIN_CHANGE,
        cases=[write(item, 100 + i) for i, item in enumerate(cases())],
    )
    golden["cases"] = [json.dumps(item) for item in golden["cases"]]
    text = json.dumps(golden, indent=1)
    for item in golden["cases"]:  # one case a line: ids are not read by people
        text = text.replace(json.dumps(item), item)
    (GOLDEN / "model-goldens.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
