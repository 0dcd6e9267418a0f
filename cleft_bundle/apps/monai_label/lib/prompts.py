"""Classifiers of classes that somebody has just typed."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

from cleft_bundle.checkpoints import load_trained, sha256
from cleft_bundle.checkpoints.text_bank import space_of
from cleft_bundle.data.captions.prompts import check_names
from cleft_bundle.data.token_checks import check_class_tokens
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier, class_weights
from cleft_bundle.vocabulary import NO_FINDING, Task

from .model import Loaded, ServedModel
from .settings import Settings

_KEPT = 64  # sets of classes whose embeddings are kept
_MOST = 200  # classes at once


def read_classes(given: Any, template: str) -> dict[str, list[str]]:
    """Read the classes of a request.

    Args:
        given: a list of names, a text of names separated by ``|``, or an object from names to one prompt or several.
            One name alone is joined by "no finding", which it is scored against.
        template: turns a name without prompts into one, by its slot ``{class}``.

    Returns:
        names of two or more classes to their prompts.

    Raises:
        BundleError: what is wrong with them.
    """
    names = given.split("|") if isinstance(given, str) else given
    if isinstance(names, list | dict):
        check_names(filter(_is_text, names), "params, 'classes'")
    entries = {name: [] for name in names} if isinstance(names, list) and all(map(_is_text, names)) else names
    if not isinstance(entries, dict) or not entries:
        raise BundleError("params, 'classes': names of findings are expected, such as \"pneumonia|no finding\"")
    prompts: dict[str, list[str]] = {}
    for name, value in entries.items():
        texts = [value] if isinstance(value, str) else value
        if not _is_text(name) or not isinstance(texts, list) or not all(map(_is_text, texts)):
            raise BundleError(f"params, 'classes', {name!r}: a name is expected, and prompts that are texts")
        prompts[name.strip()] = texts or [template.replace("{class}", name.strip())]
    if len(prompts) == 1 and NO_FINDING not in prompts:
        prompts[NO_FINDING] = [template.replace("{class}", NO_FINDING)]
    if len(prompts) > _MOST:
        raise BundleError(f"params, 'classes': {len(prompts)} of them, and {_MOST} at most are scored at once")
    return prompts


class PromptClassifiers:
    """The network of ``cleft.pt``, and the classifiers that it makes of prompts, each of which is embedded once.

    Args:
        model: what is served; images are prepared as for it.
        settings: where the network is.

    Raises:
        BundleError: where there is no bundle or no ``cleft.pt``, or it does not fit the network of the configs.
    """

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        if settings.bundle is None or settings.cleft is None:
            raise BundleError("prompts are scored by the bundle's configs and cleft.pt: pass --conf bundle and cleft")
        parser = ConfigParser()
        parser.read_config([str(settings.bundle / "configs" / name) for name in ("train.json", *settings.network)])
        parser["bundle_root"] = str(settings.bundle)
        for name, value in settings.values.items():
            if name not in parser:
                raise BundleError(f"--conf values: {name!r} is no id of train.json")
            parser[name] = value
        network = load_trained(parser.get_parsed_content("network_def"), settings.cleft)
        self.network = network.to(model.device).eval()
        self.tokenize = parser.get_parsed_content("tokenize")
        self.digest = sha256(settings.cleft)
        self.model = model
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Loaded] = OrderedDict()

    def classifier(self, prompts: Mapping[str, list[str]], task: Task) -> Loaded:
        """A classifier of classes by their prompts, without calibration.

        Args:
            prompts: names of two or more classes to their prompts.
            task: ``multilabel`` or ``multiclass``.

        Raises:
            BundleError: an unknown task, or prompts that the network cannot tell apart.
        """
        preprocessing = self.model.classifier.preprocessing
        key = json.dumps([prompts, task, preprocessing])
        with self._lock:
            if key not in self._kept:
                check_class_tokens(prompts, self.tokenize)
                weights = class_weights(self.network, prompts, self.tokenize, task)
                made = ZeroShotClassifier.from_cleft(self.network, list(prompts), weights, task, preprocessing)
                if space_of(made.image_encoder) == space_of(self.model.classifier.image_encoder):
                    made.typicality = self.model.classifier.typicality  # the same tower sees the same images
                self._kept[key] = Loaded(made, self.digest)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
