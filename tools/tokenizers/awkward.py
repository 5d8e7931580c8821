"""Awkward strings and conversations, from a seed: what tokenizers and chat templates get wrong if anything is wrong.

The same seed gives the same strings with every Python (random.Random's generator is specified; no locale, no Unicode
tables of Python are used). Lone surrogates are left out: they are no Unicode text and Python's tokenizers refuse them.
"""

import random

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>", "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<tool_call>", "</tool_call>",
    "<tool_response>", "</tool_response>", "<|fim_prefix|>", "<|object_ref_start|>", "<|vision_pad|>", "<s>",
    "</s>", "<unk>", "<repo_name>", "<0x0A>", "▁",
]  # fmt: skip
SPACES = [
    " ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\v", "\f", "\x1c", "\x1f", "\x85", "\u00a0",
    "\u1680", "\u2000", "\u2003", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
    "\ufeff", "\u200b", "\u180e", "\u2060",
]  # fmt: skip
CONTRACTIONS = [
    "it's", "IT'S", "we'Re", "I'll", "they'VE", "d'd", "I'm", "it\u017f's", "'\u017f", "\u2019s", "'t 'll",
    "can''t",
]  # fmt: skip
EMOJI = [
    "🙂", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "1️⃣", "🧑🏿‍🚀", "☺︎", "🫨", "🪿", "👩‍❤️‍💋‍👨", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\u200d", "\ufe0f", "🀄", "🙂🙂",
]  # fmt: skip
RIGHT_TO_LEFT = [
    "שלום עולם", "שָׁלוֹם", "مرحبا بالعالم", "العَرَبِيَّة", "۱۲۳۴", "٣٫١٤", "\u202eabc\u202c",
    "\u2067עברית\u2069", "ﷺ", "ﻻ", "پارسی‌زبان", "\u200f(א) 123", "ܫܠܡܐ", "ߒߞߏ",
]  # fmt: skip
CODE = [
    "def f(x):\n\treturn x ** 2  # ½\n", "for (let i = 0; i<n; ++i) {\n    a[i] += 1;\n}\n",
    "if __name__ == '__main__':\n", "#include <vector>\r\nint main(){return 0;}",
    "SELECT * FROM t WHERE a='b''c';", "print(f\"{x!r:>10}\")", "\\frac{1}{2}\\boxed{42}",
    "$$\\sum_{i=1}^{n} x_i^2$$", "<div class=\"a b\">&nbsp;</div>", "a = b\n\n\n    c", "x->y::z<T>()",
    "C:\\Users\\n\\t", "{\"k\": [1, 2.5e-3]}", "^\\s+(?!\\S)$", "```python\nassert True\n```",
    "0x1F600 0b1010 1_000_000", "////////", "--------\n--------", "'''\"\"\"'''", "#!/bin/sh\n",
]  # fmt: skip
WORDS = [
    "the", "Answer", "naïve", "naïve", "Ångström", "A\u030angstro\u0308m", "İstanbul", "straße", "ﬁnancial",
    "Ωmega", "Привет", "Ελληνικά", "日本語", "こんにちは", "カﾀｶﾅ", "안녕하세요", "한글", "中文字符", "หวัดดี", "हिन्दी", "தமிழ்",
    "አማርኛ", "ქართული", "ᏣᎳᎩ", "Việt", "e\u0301\u0327", "c\u0327\u0301", "\u1e9b\u0323", "ǆ", "Ǆ", "ß", "ẞ",
    "\u0345", "½", "²³", "Ⅻ", "①", "㋿", "x̂", "q̣̇", "q̣̇", "Å", "\u2126", "\u212a", "가\u11a8", "𝔘𝔫𝔦", "𝟘𝟙",
    "𐍈", "𒀀", "🄰", "ﬀ", "ªº", "µ", "l'été", "co-op", "A.B.C.", "e.g.,", "100%", "$5", "#1", "@x",
]  # fmt: skip
NUMBERS = [
    "0", "7", "42", "1234567890", "3.14159", "1,000,000", "1e-10", "-273.15", "٠١٢", "०१२", "12345",
    "999 999", "1/2", "٪٥", "²⁰",
]  # fmt: skip
CONTROLS = [
    "\x00", "\x01", "\x07", "\x08", "\x1b[31m", "\x7f", "\x80", "\x9f", "\u00ad", "\u0600", "\u061c",
    "\ufffd", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff", "\ue000", "\U000f0000",
]  # fmt: skip
POOLS = [SPECIAL_TOKENS, SPACES, CONTRACTIONS, EMOJI, RIGHT_TO_LEFT, CODE, WORDS, NUMBERS, CONTROLS]

# Blocks from which single characters are drawn, assigned or not.
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F), (0x590, 0x7FF), (0x900, 0xDFF),
    (0xE00, 0x11FF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF),
    (0x3130, 0x318F), (0x4E00, 0x9FFF), (0xA000, 0xABFF), (0xAC00, 0xD7FF), (0xE000, 0xF8FF),
    (0xF900, 0xFFFF), (0x10000, 0x10FFF), (0x11000, 0x16FFF), (0x1D000, 0x1D7FF), (0x1F000, 0x1FAFF),
    (0x20000, 0x323AF), (0xE0000, 0xE01EF),
]  # fmt: skip


def character(rng):
    low, high = rng.choice(BLOCKS)
    return chr(rng.randint(low, high))


def piece(rng):
    """One part of a string: a hard case, a run of one character, characters of a block, or a broken special token."""
    kind = rng.randrange(10)
    if kind < 6:
        return rng.choice(rng.choice(POOLS))
    if kind == 6:
        return (rng.choice(SPACES) if rng.random() < 0.5 else character(rng)) * rng.randint(2, 20)
    if kind == 7:
        token = rng.choice(SPECIAL_TOKENS)
        cut = rng.randint(0, len(token))
        return token[:cut] + rng.choice(["", " ", "\u200b", token, token[cut:].upper()]) + token[cut:]
    return "".join(character(rng) for _ in range(rng.randint(1, 6)))


def awkward_strings(count, seed):
    rng = random.Random(seed)
    texts = ["", " ", "\n", "a", "\ufeff", "\x00", "🙂"]
    while len(texts) < count:
        glue = rng.choice(["", "", " ", "\n"])
        texts.append(glue.join(piece(rng) for _ in range(rng.randint(1, 16))))
    return texts[:count]


def conversations(seed, count):
    """Roles as training data has them: system or not, one turn or several, odd white space and thoughts."""
    rng = random.Random(seed)

    def content():
        text = "".join(piece(rng) for _ in range(rng.randint(1, 5)))
        around = [rng.choice(SPACES + ["", "", "\n\n ", " \n"]) for _ in range(2)]
        return around[0] + text + around[1]

    def answer():
        kind = rng.randrange(4)
        if kind == 0:
            return content()
        gap = rng.choice(["\n", "\n\n", " \n", "\n \n", ""])
        return f"<think>{gap}{content()}{gap}</think>{gap}{content()}"

    plain = [
        [{"role": "user", "content": "What is 2 + 2?"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}],
        [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Why?"},
        ],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "<think>\nx\n</think>\n\nHello!"}],
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "  "}, {"role": "user", "content": " \ufeff a \u0085"}],
    ]
    while len(plain) < count:
        chat = [{"role": "system", "content": content()}] if rng.random() < 0.5 else []
        for _ in range(rng.randint(0, 3)):
            chat += [{"role": "user", "content": content()}, {"role": "assistant", "content": answer()}]
        plain.append(chat + [{"role": "user", "content": content()}])
    return plain[:count]
