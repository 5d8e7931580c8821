#!/usr/bin/env python3
"""Writes test/unit/fixtures/tokenizers: small tokenizers of the families that people train, and what Python makes of
them.

Each has a vocabulary of a thousand tokens trained on the awkward strings, and of its family the exact normalizer,
pre-tokenizer, post-processor, decoder, BPE flags and added tokens; the chat templates are ours, in the family's format
and with the same Jinja constructs. golden.json holds strings and conversations with digests of Python's ids and
decodings, and its renderings.

    python3 -m venv venv && venv/bin/pip install -r tools/tokenizers/requirements.txt
    venv/bin/python tools/tokenizers/make_fixtures.py
"""

import hashlib
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from awkward import awkward_strings, conversations
from oracle import chat_renderer, compact, facts_of

FIXTURES = Path(__file__).resolve().parents[2] / "test" / "unit" / "fixtures" / "tokenizers"
NUM_MERGED = 1000  # tokens of the vocabulary, single bytes included
STRINGS = 400
CHATS = 40

# GPT-4's pattern as the Qwen2 and Llama 3 families have it: they differ in how many digits a piece may have.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ONE_DIGIT, THREE_DIGITS = PATTERN % r"\p{N}", PATTERN % r"\p{N}{1,3}"


def byte_level(trim_offsets):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": trim_offsets, "use_regex": False}


def begins_with(token, id):
    """The post-processor that puts a begin token in front."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [special, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


QWEN_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {{- raise_exception('no tools here') }}
{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# As Qwen3 does it: thoughts of earlier turns are dropped, those of the last turn are set off by line ends.
THINKING_TEMPLATE = """\
{%- set ns = namespace(last_query=messages|length - 1, searching=true) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == 'user' and not message.content.startswith('<tool_response>') %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- set thought = '' %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if message.role == 'assistant' and loop.index0 > ns.last_query %}
        {%- set content = '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

LLAMA_TEMPLATE = """\
{% for message in messages %}
{% set head = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' %}
{% set turn = head + message['content'] | trim + '<|eot_id|>' %}
{% if loop.index0 == 0 %}{% set turn = bos_token + turn %}{% endif %}
{{- turn -}}
{% endfor %}
{% if tools is not none %}{{ raise_exception('no tools here') }}{% endif %}
{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{% endif %}
"""

DEEPSEEK_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system='') %}"
    "{%- for message in messages if message['role'] == 'system' %}"
    "{% set ns.system = ns.system + message['content'] %}{%- endfor %}"
    "{{ bos_token }}{{ ns.system }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}"
    "{%- endfor -%}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)

QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
QWEN_PLAIN = [
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>",
    "<|file_sep|>",
]  # fmt: skip
LLAMA_SPECIAL = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
]  # fmt: skip
DEEPSEEK_SPECIAL = ["<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"]
DEEPSEEK_PLAIN = ["<｜User｜>", "<｜Assistant｜>", "<|EOT|>", "<think>", "</think>"]

FAMILIES = {
    "qwen2.5": dict(
        pattern=ONE_DIGIT, normalizer={"type": "NFC"}, special=QWEN_SPECIAL, plain=QWEN_PLAIN,
        eos="<|im_end|>", pad="<|endoftext|>", template=QWEN_TEMPLATE,
    ),
    "qwen3": dict(
        pattern=ONE_DIGIT, normalizer={"type": "NFC"}, special=QWEN_SPECIAL,
        plain=[*QWEN_PLAIN, "<tool_response>", "</tool_response>", "<think>", "</think>"],
        eos="<|im_end|>", pad="<|endoftext|>", template=THINKING_TEMPLATE,
    ),
    "llama3": dict(
        pattern=THREE_DIGITS, normalizer=None, special=LLAMA_SPECIAL, plain=[], ignore_merges=True,
        bos="<|begin_of_text|>", eos="<|eot_id|>", template=LLAMA_TEMPLATE,
    ),
    "deepseek-r1-distill": dict(
        pattern=ONE_DIGIT, normalizer={"type": "NFC"}, special=DEEPSEEK_SPECIAL, plain=DEEPSEEK_PLAIN,
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", pad="<｜end▁of▁sentence｜>", template=DEEPSEEK_TEMPLATE,
    ),
}  # fmt: skip


def trained_model(pattern, texts):
    """A BPE model over all 256 bytes, its merges learnt from the texts."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=NUM_MERGED, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return json.loads(tokenizer.to_str())["model"]


def tokenizer_json(family, texts):
    model = trained_model(family["pattern"], texts)
    model["ignore_merges"] = family.get("ignore_merges", False)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [(token, True) for token in family["special"]] + [(token, False) for token in family["plain"]]
    ids = {token: len(model["vocab"]) + i for i, (token, _) in enumerate(added)}
    post = byte_level(trim_offsets=False)
    if bos := family.get("bos"):
        post = {"type": "Sequence", "processors": [byte_level(trim_offsets=True), begins_with(bos, ids[bos])]}
    split = {"type": "Split", "pattern": {"Regex": family["pattern"]}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **flags, "special": special} for token, special in added],
        "normalizer": family["normalizer"],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level(trim_offsets=True)]},
        "post_processor": post,
        "decoder": byte_level(trim_offsets=True),
        "model": model,
    }


def tokenizer_config(family):
    tokens = {f"{name}_token": family[name] for name in ("bos", "eos", "pad") if name in family}
    return {"tokenizer_class": "PreTrainedTokenizerFast", **tokens, "chat_template": family["template"]}


def digest(facts):
    return hashlib.sha256(compact(facts).encode()).hexdigest()[:16]


def main():
    texts = awkward_strings(STRINGS, seed=1)
    chats = conversations(seed=2, count=CHATS)
    golden = {"strings": texts, "conversations": chats, "families": {}}
    training = awkward_strings(4000, seed=3)
    for name, family in FAMILIES.items():
        folder = FIXTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        config = tokenizer_config(family)
        files = {"tokenizer.json": tokenizer_json(family, training), "tokenizer_config.json": config}
        for file, value in files.items():
            (folder / file).write_text(compact(value) + "\n", encoding="utf-8")
        render = chat_renderer(config["chat_template"], config)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        golden["families"][name] = {
            "strings": [digest(facts_of(tokenizer, text)) for text in texts],
            "rendered": [render(chat, generation) for chat in chats for generation in (False, True)],
        }
    target = FIXTURES / "golden.json"
    target.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(f"{target}: {STRINGS} strings, {CHATS} conversations, {len(FAMILIES)} families")


if __name__ == "__main__":
    main()
