"""Findings in somebody's own words: from prompts to class weights, by a bank of texts or by the language model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from cleft_bundle.checkpoints import load_trained, sha256
from cleft_bundle.checkpoints.text_bank import VOCABULARY, TextBank, space_of
from cleft_bundle.config_files import read_config, shipped
from cleft_bundle.data.captions.prompts import check_names
from cleft_bundle.data.token_checks import check_class_tokens
from cleft_bundle.engines.vocabulary import TEMPLATE
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier
from cleft_bundle.networks.classifiers.zero_shot import oppose
from cleft_bundle.vocabulary import NO_FINDING

MODEL, BANK, CACHE, LANGUAGE = "model", "vocabulary", "cache", "language model"


def cache_folder() -> Path:
    """Folder of embedded prompts: ``cleft_bundle`` below ``XDG_CACHE_HOME``, or ``~/.cache`` where it is unset."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cleft_bundle"


@dataclass
class OwnWords:
    """Make classifiers of findings that are no classes of ``model.pt``.

    Each finding is scored against "no finding" alone, so its score does not depend on what else is asked for. What is
    not calibrated here: the probability is that of the softmax between the two.

    Args:
        classifier: whose tower embeds the images.
        folder: of the classifier's file, where ``vocabulary.safetensors`` may lie.
        checkpoint: the trained network, ``cleft.pt``: loaded when a prompt is new.
        config_file: the training's config and its overlays; empty for the ``train.json`` of this package.
        override: values of the config, by id.
        template: turns a finding into a prompt, by its slot ``{class}``; None: that of the vocabulary, else
            :data:`TEMPLATE`.
    """

    classifier: ZeroShotClassifier
    folder: Path
    checkpoint: Path
    config_file: Sequence[str] = ()
    override: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None

    def __post_init__(self) -> None:
        """Refuse a template without its slot."""
        if self.template is not None and "{class}" not in self.template:
            raise BundleError(f"template: expected a text with the slot {{class}}, got {self.template!r}")

    def classify(self, findings: Sequence[str]) -> tuple[ZeroShotClassifier, str]:
        """A classifier of findings and "no finding", without calibration, on the device of the model's.

        Args:
            findings: names that are no classes of the model.

        Returns:
            the classifier, and where the texts' embeddings come from, ``vocabulary``, ``cache`` or ``language model``.

        Raises:
            BundleError: where neither knows the words: there is no ``cleft.pt``, or it does not fit the config; or two
                findings are one to the network.
        """
        names = list(dict.fromkeys([*findings, NO_FINDING]))
        check_names(names, "find")
        template = self.template or (self._bank.template if self._bank else "") or TEMPLATE
        prompts = {name: [template.replace("{class}", name)] for name in names}
        rows, source = self._embed(prompts)
        made = ZeroShotClassifier(self.classifier.image_encoder, names, "multilabel", self.classifier.preprocessing)
        made.class_weights = oppose(F.normalize(rows, dim=1), names, "multilabel")
        made.logit_scale = self.classifier.logit_scale.detach().clone()
        return made.to(self.classifier.bias.device).eval(), source

    def _embed(self, prompts: Mapping[str, list[str]]) -> tuple[torch.Tensor, str]:
        texts = [text for group in prompts.values() for text in group]
        if self._bank is not None and (rows := self._bank.find(texts)) is not None:
            return rows, BANK
        if not self.checkpoint.is_file():
            raise BundleError(
                f"find: {', '.join(name for name in prompts if name != NO_FINDING)}: not among the model's classes "
                f"({', '.join(self.classifier.class_names)}); other words need the trained network, or a "
                f"{VOCABULARY} that knows them, and there is no {self.checkpoint}"
            )
        cache = self._cache()
        if (rows := cache.find(texts)) is not None:
            return rows, CACHE
        rows = self._by_language_model(prompts, texts)
        cache.add(texts, rows)
        cache.save(self._cache_file)
        return rows, LANGUAGE

    @cached_property
    def _space(self) -> str:
        return space_of(self.classifier.image_encoder)

    @cached_property
    def _bank(self) -> TextBank | None:
        path = self.folder / VOCABULARY
        return TextBank.load(path, self._space) if path.is_file() else None

    @cached_property
    def _cache_file(self) -> Path:
        made_by = json.dumps([self._space, sha256(self.checkpoint), list(self.config_file), dict(self.override)])
        return cache_folder() / "prompts" / f"{hashlib.sha256(made_by.encode()).hexdigest()[:32]}.safetensors"

    def _cache(self) -> TextBank:
        """The prompts that were embedded before; what cannot be read is made anew."""
        try:
            return TextBank.load(self._cache_file, self._space)
        except BundleError:
            return TextBank(self._space, hashed=True)

    @cached_property
    def _language(self) -> tuple[Any, Any]:
        """The whole network and its tokenizer, on the CPU."""
        files = self.config_file or [str(shipped() / "configs" / "train.json")]
        parser = read_config(list(files), self.override)
        try:
            network = load_trained(parser.get_parsed_content("network_def"), self.checkpoint).eval()
        except BundleError as error:
            raise BundleError(f"{error}; the config of its training is named by config_file and its values") from error
        if space_of(network.image_encoder.merged()) != self._space:
            raise BundleError(f"{self.checkpoint} and the classifier beside it are of different trainings")
        return network, parser.get_parsed_content("tokenize")

    @torch.no_grad()
    def _by_language_model(self, prompts: Mapping[str, list[str]], texts: Sequence[str]) -> torch.Tensor:
        network, tokenize = self._language
        check_class_tokens(prompts, tokenize)
        return network.encode_text(**tokenize(texts)).float().cpu()
