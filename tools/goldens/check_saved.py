"""Opens the folders that save_folders.mjs wrote with transformers and compares logits with the package's own."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4

worst = 0.0
folders = sorted(path for path in Path(sys.argv[1]).iterdir() if (path / "expected.json").exists())
for folder in folders:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = json.loads((folder / "expected.json").read_text())
    difference = 0.0
    for ids, logits in zip(expected["sequences"], expected["logits"]):
        with torch.no_grad():
            ours = torch.tensor(logits).view(len(ids), -1)
            difference = max(difference, (model(torch.tensor([ids])).logits[0] - ours).abs().max().item())
    print(f"{folder.name}: largest difference {difference:.1e}")
    worst = max(worst, difference)
if not folders or worst > TOLERANCE:
    sys.exit(f"{len(folders)} folders, worst difference {worst:.1e}, allowed {TOLERANCE:.0e}")
