"""Inference with classes that are typed into the request."""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser

from cleft_bundle.checkpoints import load_trained, sha256
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import ZeroShotClassifier, class_weights
from cleft_bundle.networks.classifier import NO_FINDING, Task

from ..model import Loaded, ServedModel
from ..settings import Settings
from .scoring import HIGHEST, NONE, ScoringTask

logger = logging.getLogger(__name__)

_KEPT = 64  # sets of classes whose embeddings are kept
_MOST = 200  # classes of a request


class PromptTask(ScoringTask):
    """Score an image with classes of the request, zero-shot, with the language model of ``cleft.pt``.

    The request's ``classes`` are a list of names, a text of names separated by ``|``, or an object from names to one
    prompt or several. Names become prompts by the template. ``task`` is ``multilabel`` (the default) or
    ``multiclass``. One name alone is scored against "no finding". Images are prepared as for the served classifier.

    Args:
        model: what is served.
        settings: where the network is.
    """

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        super().__init__(settings.task_type, "Scores of classes in your own words")
        self.model = model
        self.settings = settings
        self._lock = threading.Lock()
        self._network: tuple[Any, Any, str] | None = None
        self._classifiers: OrderedDict[str, Loaded] = OrderedDict()

    def load(self) -> None:
        """Load the network, strictly; the first request does so too.

        Raises:
            BundleError: where ``cleft.pt`` does not fit the network of the config.
        """
        with self._lock:
            self._load()

    def scorer(self, request: Mapping[str, Any]) -> Loaded:
        """A classifier of the classes of a request, whose embeddings are computed once."""
        prompts = read_classes(request.get("classes"), self.settings.template)
        task: Task = request.get("task", "multilabel")
        preprocessing = self.model.classifier.preprocessing
        key = json.dumps([prompts, task, preprocessing])
        with self._lock:
            if key not in self._classifiers:
                network, tokenize, digest = self._load()
                weights = class_weights(network, prompts, tokenize, task)
                classifier = ZeroShotClassifier.from_cleft(network, list(prompts), weights, task, preprocessing)
                self._classifiers[key] = Loaded(classifier, digest)
                if len(self._classifiers) > _KEPT:
                    self._classifiers.popitem(last=False)
            self._classifiers.move_to_end(key)
            return self._classifiers[key]

    def info(self) -> dict[str, Any]:
        """What clients are told: the options, with the served classes as an example."""
        config = {
            "classes": "|".join(self.model.class_names),
            "task": ["multilabel", "multiclass"],
            "heat_map": [NONE, HIGHEST],
        }
        return {**super().info(), "config": config}

    def _load(self) -> tuple[Any, Any, str]:
        if self._network is None:
            settings = self.settings
            assert settings.bundle is not None  # noqa: S101  # who has no bundle is not offered this task
            assert settings.cleft is not None  # noqa: S101
            parser = ConfigParser()
            parser.read_config([str(settings.bundle / "configs" / name) for name in ("train.json", *settings.network)])
            parser.set(str(settings.bundle), "bundle_root")
            for name, value in settings.values.items():
                if name not in parser:
                    raise BundleError(f"--conf values: {name!r} is no id of train.json")
                parser.set(value, name)
            network = load_trained(parser.get_parsed_content("network_def"), settings.cleft)
            tokenize = parser.get_parsed_content("tokenize")
            self._network = network.to(self.model.device).eval(), tokenize, sha256(settings.cleft)
            logger.info("prompts are scored by %s", settings.cleft)
        return self._network


def read_classes(given: Any, template: str) -> dict[str, list[str]]:
    """Read the classes of a request.

    Args:
        given: see :class:`PromptTask`.
        template: turns a name into a prompt.

    Returns:
        names of two or more classes to their prompts.

    Raises:
        BundleError: what is wrong with them.
    """
    if isinstance(given, str):
        given = given.split("|")
    if isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        given = {name: [] for name in given}
    if not isinstance(given, dict) or not given:
        raise BundleError("params: 'classes' is expected: names of findings, such as \"pneumonia|no finding\"")
    prompts = {}
    for name, value in given.items():
        texts = [value] if isinstance(value, str) else value
        if not name.strip() or not isinstance(texts, list) or not all(isinstance(t, str) and t.strip() for t in texts):
            raise BundleError(f"params: 'classes': {name!r} is expected to have a name and prompts that are texts")
        prompts[name.strip()] = texts or [template.format_map({"class": name.strip()})]
    if len(prompts) == 1 and NO_FINDING not in prompts:
        prompts[NO_FINDING] = [template.format_map({"class": NO_FINDING})]
    if len(prompts) > _MOST:
        raise BundleError(f"params: 'classes': {len(prompts)} classes, and {_MOST} at most are scored at once")
    return prompts
