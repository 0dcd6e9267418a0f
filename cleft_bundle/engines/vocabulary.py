"""The vocabulary of a training: embeddings of many findings, so that most words need no language model later."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cleft_bundle.checkpoints.text_bank import TextBank
from cleft_bundle.config_files import shipped
from cleft_bundle.data.captions.findings import BREAST, CHEST
from cleft_bundle.data.captions.prompts import load_prompts
from cleft_bundle.distributed import rank
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.names import plain_name
from cleft_bundle.networks.protocol import DualNetwork
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: Prompt of a finding where the class prompts of a training do not show one.
TEMPLATE = "this is a chest x ray of a patient with {class}"
_BATCH = 64


def template_of(prompts: Mapping[str, Sequence[str]]) -> str:
    """The prompt, with the slot ``{class}``, that most classes of a training have; else :data:`TEMPLATE`.

    Args:
        prompts: class name to its prompts.
    """
    found = [texts[0].replace(name, "{class}") for name, texts in prompts.items() if texts and name in texts[0]]
    return Counter(found).most_common(1)[0][0] if found else TEMPLATE


def texts_of(inferer: ZeroShotInferer) -> list[str]:
    """The texts of a vocabulary, each once.

    They are the class prompts of the training, those of all prompt files of this package, and the training's template
    with the names of all these classes and of :mod:`cleft_bundle.data.captions.findings`.
    """
    template = template_of(inferer.prompts)
    sets = [load_prompts(str(path)) for path in sorted((shipped() / "configs" / "prompts").glob("*.json"))]
    groups: list[Mapping[str, Sequence[str]]] = [inferer.prompts, inferer.negatives]
    groups += [group for one in sets for group in (one.classes, one.negatives)]
    names = [NO_FINDING, *CHEST, *BREAST, *(plain_name(name) for group in groups for name in group)]
    texts = [text for group in groups for prompts in group.values() for text in prompts]
    return list(dict.fromkeys([*(template.replace("{class}", name) for name in names), *texts]))


@torch.no_grad()
def write_vocabulary(network: DualNetwork, inferer: ZeroShotInferer, space: str, path: str | Path) -> None:
    """Embed the texts of a vocabulary; of several processes all take part and the first one writes.

    Args:
        network: the trained dual encoder.
        inferer: its class prompts and its tokenizer.
        space: of its image tower, see :func:`cleft_bundle.checkpoints.text_bank.space_of`.
        path: receives the bank.
    """
    texts = texts_of(inferer)
    training, device = network.training, network.logit_scale.device
    network.eval()
    rows = []
    for start in range(0, len(texts), _BATCH):
        tokens = inferer.tokenize(texts[start : start + _BATCH])
        rows.append(network.encode_text(**{key: value.to(device) for key, value in tokens.items()}).float().cpu())
    network.train(training)
    if rank() == 0:
        TextBank(space, texts, torch.cat(rows), template_of(inferer.prompts)).save(path)
        logger.info("vocabulary of %d texts: %s", len(texts), path)
