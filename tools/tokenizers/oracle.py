#!/usr/bin/env python3
"""What Python makes of awkward strings and conversations with the tokenizer of a model folder, as JSON lines.

    {"text", "facts": [ids, ids with special tokens, decoded, decoded without special tokens, a middle part decoded]}
    {"chat", "generation", "rendered"}    rendered is null where the template raises

tools/tokenizers/check.mjs reads them and does the same in Node.
"""

import argparse
import json
import sys
from pathlib import Path

from awkward import awkward_strings, conversations

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def compact(value):
    """As JSON.stringify writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def facts_of(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    # Cut anywhere, also within a character.
    middle = ids[len(ids) // 3 : 2 * len(ids) // 3 + 1]
    return [
        ids,
        tokenizer.encode(text).ids,
        tokenizer.decode(ids, skip_special_tokens=False),
        tokenizer.decode(ids, skip_special_tokens=True),
        tokenizer.decode(middle, skip_special_tokens=False),
    ]


def chat_renderer(template, config):
    """Renders as transformers' apply_chat_template does, with the special tokens that the folder names."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    tokens = {}
    for name in SPECIAL:
        value = config.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if content is not None:
            tokens[name] = content

    def render(chat, generation):
        try:
            texts, _ = render_jinja_template(
                [chat], chat_template=template, add_generation_prompt=generation, **tokens
            )
            return texts[0]
        except TemplateError:
            return None

    return render


def template_of(folder, config):
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")


def main():
    from tokenizers import Tokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strings", type=int, default=10000)
    parser.add_argument("--chats", type=int, default=500)
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    out = open(sys.stdout.fileno(), "w", encoding="utf-8", closefd=False)
    tokenizer = Tokenizer.from_file(str(options.folder / "tokenizer.json"))
    for text in awkward_strings(options.strings, options.seed):
        print(compact({"text": text, "facts": facts_of(tokenizer, text)}), file=out)
    file = options.folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    template = template_of(options.folder, config)
    if template is None:
        return
    render = chat_renderer(template, config)
    for chat in conversations(options.seed, options.chats):
        for generation in (False, True):
            print(compact({"chat": chat, "generation": generation, "rendered": render(chat, generation)}), file=out)


if __name__ == "__main__":
    main()
