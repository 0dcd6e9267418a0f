"""Heat maps of a classifier's findings over the pixels of the file that was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import Compose

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.names import column
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.networks.heat_maps import Head, Method, class_maps
from cleft_bundle.transforms import OriginalPixels
from cleft_bundle.vocabulary import NO_FINDING

CALLED, ALL = "called", "all"
#: Words that stand for findings; a class called like one of them is asked for with ``class:`` before it.
WORDS = (CALLED, ALL)


@dataclass(frozen=True)
class Verdict:
    """Verdict of a classifier on one class in one image.

    Args:
        score: calibrated.
        threshold: at or above which it is called; None where it has none, as for ``multiclass``.
        called: whether it is.
        why: in a few words, where the threshold does not say it.
    """

    score: float
    threshold: float | None
    called: bool
    why: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """``Score``, ``Threshold`` where there is one, and ``Call``, with digits that tell the first two apart."""
        least = self.score if self.threshold is None else self.threshold
        digits = 3 if self.score == least or f"{self.score:.3f}" != f"{least:.3f}" else 7
        threshold = {} if self.threshold is None else {"Threshold": f"{self.threshold:.{digits}f}"}
        call = "called" if self.called else "not called"
        return {"Score": f"{self.score:.{digits}f}", **threshold, "Call": f"{call}, {self.why}" if self.why else call}

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        *known, (_, call) = self.texts.items()
        return f"{', '.join(f'{key.lower()} {text}' for key, text in known)}: {call}"


class HeatMaps:
    """Map onto the pixels of an image what speaks for findings of a classifier.

    Args:
        network: the classifier.
        transforms: those that prepare its images, the reader first.
        method: of :func:`cleft_bundle.networks.heat_maps.heat_map`.

    Raises:
        BundleError: where the classifier is in a form of which there are no maps.
    """

    def __init__(self, network: DeployedClassifier, transforms: Compose, method: Method = "attention") -> None:
        self.network = network
        self.method: Method = method
        self.head = Head.of(network)
        self.thresholds: Mapping[str, float] = network.operating_point["thresholds"]
        self.load, *others = transforms.flatten().transforms
        self._chain = OriginalPixels(others)

    @property
    def findings(self) -> list[str]:
        """The names of all classes but "no finding"."""
        return [name for name in self.network.class_names if name != NO_FINDING]

    def called(self, scores: Mapping[str, float]) -> list[str]:
        """The findings that an image's scores, by name of class, amount to; see :meth:`verdict`."""
        return [name for name in self.findings if self.verdict(name, scores).called]

    @property
    def decides(self) -> bool:
        """True where there is anything by which a finding could be called."""
        return self.network.task == "multiclass" or bool(self.thresholds)

    def verdict(self, name: str, scores: Mapping[str, float]) -> Verdict:
        """Verdict of the classifier on one class, by an image's scores by name of class.

        For ``multiclass`` the class of the highest score is called, and for ``multilabel`` those whose scores are at or
        above their thresholds; a class without one is not.
        """
        score = scores[name]
        if self.network.task == "multiclass":
            first = max(scores, key=lambda other: scores[other])
            why = "the highest score" if name == first else f"the highest score is {scores[first]:.3f}"
            return Verdict(score, None, called=name == first, why=why)
        if name not in self.thresholds:
            return Verdict(score, None, called=False, why="no threshold")
        return Verdict(score, self.thresholds[name], called=score >= self.thresholds[name])

    def wanted(self, asked: str | Sequence[str], scores: Mapping[str, float]) -> list[str]:
        """The classes that maps of one image are wanted of.

        Args:
            asked: ``called``, ``all`` findings, or one or more names of classes, see :data:`WORDS`.
            scores: of the image, by name of class.

        Raises:
            BundleError: where a name is none of the classes.
        """
        if asked == CALLED:
            return self.called(scores)
        if asked == ALL:
            return self.findings
        if not isinstance(asked, (str, list, tuple)) or not asked:
            raise BundleError(f"heat_map_findings: expected called, all, a class or a list of classes, got {asked!r}")
        known = {column(name, WORDS): name for name in self.network.class_names}
        names = [asked] if isinstance(asked, str) else list(dict.fromkeys(asked))
        for name in names:
            require_one_of("heat_map_findings", name, [*(() if len(names) > 1 else WORDS), *known])
        return [known[name] for name in names]

    def __call__(self, loaded: Mapping[str, Any], names: Sequence[str]) -> torch.Tensor:
        """Make the heat maps of one image.

        Args:
            loaded: an item as :attr:`load` gives it.
            names: of K' classes.

        Returns:
            float [K', H, W] on the CPU, over the pixels of the file, in
            :data:`cleft_bundle.networks.heat_maps.UNIT`: higher where the evidence is.
        """
        prepared, trace = self._chain.prepare(loaded)
        image = torch.as_tensor(prepared["image"])[None]
        places = [self.network.class_names.index(name) for name in names]
        maps = class_maps(self.network, image, self.head, places, self.method)[0]
        return self._chain.restore(maps, trace)
