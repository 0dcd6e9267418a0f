"""``cleft import``: a checkpoint of CLEFT's authors becomes one of this bundle."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from cleft_bundle.checkpoints import TrainedState, official, save
from cleft_bundle.config import command


def import_(file: str, out: str = "models/cleft.pt", text_backbone: str | None = None, verbose: bool = False) -> None:
    """Import a checkpoint of CLEFT's authors: their Lightning file becomes this bundle's own cleft.pt.

    cleft import RELEASED.ckpt --out models/cleft.pt

    Beside OUT there are then the config overlay ``<stem>_net.json``, which goes after configs/train.json, and the
    frozen language model as a Hugging Face folder, unless it is BioMedLM, which the hub has. What became of each key
    is printed.

    Args:
        file: the authors' checkpoint.
        out: the trained state to write.
        text_backbone: folder to write the frozen language model to; ``<stem>_text_backbone`` beside OUT by default, and
            none for BioMedLM.
        verbose: list every key, instead of one line for those that differ in the layer's number only.

    Raises:
        BundleError: the file is no such checkpoint.
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
