"""Import a checkpoint of CLEFT's authors: their Lightning file becomes this bundle's own cleft.pt.

python scripts/import_official.py FILE --out models/cleft.pt

Beside OUT there come to stand the config overlay ``<stem>_net.json``, which goes after configs/train.json, and the
frozen language model as a Hugging Face folder, unless it is BioMedLM, which the hub has.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path

import fire

from cleft_bundle.checkpoints import TrainedState, official, save
from cleft_bundle.config import command
from cleft_bundle.errors import BundleError


def main(file: str, out: str = "models/cleft.pt", text_backbone: str | None = None, verbose: bool = False) -> None:
    """Import a file, print what became of each of its keys, and write the network.

    Args:
        file: the authors' checkpoint.
        out: the trained state to write.
        text_backbone: folder to write the frozen language model to; ``<stem>_text_backbone`` beside OUT by default,
            and none for BioMedLM.
        verbose: list every key, instead of one line for those that differ in the layer's number only.
    """
    imported = official.import_official(file)
    _print_report(imported, verbose)
    path = Path(out)
    backbone = official.BIOMEDLM
    if text_backbone is not None or not official.is_biomedlm(imported.network):
        folder = Path(text_backbone or path.with_name(f"{path.stem}_text_backbone")).resolve()
        official.save_language_model(imported.network, folder)
        backbone = str(folder)
    save(TrainedState(imported.network).state_dict(), path)
    net = path.with_name(f"{path.stem}_net.json")
    net.write_text(json.dumps({**imported.settings, "text_backbone": backbone}, indent=4) + "\n")
    print(f"wrote {path} and {net}; the language model is {backbone}")
    if imported.settings["tokenizer_source"] == "@text_backbone":
        print(f"the file holds no tokenizer: put that of the language model into {backbone}, or pass tokenizer_source")
    tuned = ["configs/prompt_tuning.json"] if imported.network.prompt is not None else []
    overlays = ["configs/train.json", *tuned, str(net), "configs/evaluate.json"]
    print(f"evaluate it: {command('evaluating', overlays, '--checkpoint', str(path))}")


def _print_report(imported: official.OfficialImport, verbose: bool) -> None:
    counts = Counter(entry.status for entry in imported.report)
    print(f"{counts['mapped']} keys mapped, {counts['ignored']} ignored")
    for status in ("mapped", "ignored"):
        lines = [f"{entry.key} -> {entry.detail}" for entry in imported.report if entry.status == status]
        if status == "mapped" and not verbose:
            lines = [re.sub(r"\.\d+\.", ".N.", line) for line in lines]
        for line, count in Counter(lines).items():
            print(f"  {status}: {line}" + (f" ({count} keys)" if count > 1 else ""))
    for value in imported.assumed:
        print(f"  assumed, as the file does not say: {value}")


if __name__ == "__main__":
    try:
        fire.Fire(main)
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
