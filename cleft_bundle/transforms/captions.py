"""Random choices among what can be said of an image: one of its captions, or some sentences of a report.

They stand before transforms that change a caption with its image, such as `RandBreastFlipd`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform

from cleft_bundle.data.captions.reports import sentences
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms.checks import require_fraction, require_range

Data = Mapping[Hashable, Any]


class RandCaption(RandomizableTransform):
    """Draw one of several captions, all with the same probability.

    Raises:
        BundleError: on a call, if there is none.
    """

    def randomize(self, data: Sequence[str]) -> None:
        """Draw the next of these captions."""
        super().randomize(None)
        self._place = self.R.randint(len(data))

    def __call__(self, captions: Sequence[str], randomize: bool = True) -> str:
        """Return one of the captions."""
        if not captions:
            raise BundleError("captions: expected one or more to draw from")
        if randomize:
            self.randomize(captions)
        return captions[self._place]


class RandSentences(RandomizableTransform):
    """Leave out sentences of a text at random; those that are kept stay in their order.

    Args:
        prob: probability of leaving any out, 0..1.
        keep: range of the share of the sentences that is kept, 0..1; one of them is always kept.

    Raises:
        BundleError: naming the argument that is out of its range.
    """

    def __init__(self, prob: float = 0.5, keep: tuple[float, float] = (0.3, 1.0)) -> None:
        super().__init__(require_fraction("prob", prob))
        self.keep = require_range("keep", keep)
        for share in self.keep:
            require_fraction("keep", share)

    def randomize(self, data: int) -> None:
        """Draw which of so many sentences are kept next."""
        super().randomize(None)
        count = max(1, round(self.R.uniform(*self.keep) * data))
        self._places = sorted(self.R.choice(data, min(count, data), replace=False))

    def __call__(self, text: str, randomize: bool = True) -> str:
        """Return the text, or some of its sentences joined by spaces."""
        parts = sentences(text)
        if not parts:
            return text
        if randomize:
            self.randomize(len(parts))
        return " ".join(parts[place] for place in self._places) if self._do_transform else text


class RandCaptiond(RandomizableTransform, MapTransform):
    """Dictionary version of `RandCaption`: puts one of an item's captions in the place of its caption.

    Args:
        keys: where the drawn caption goes.
        source_key: the list to draw from; an item without it stays as it is.
    """

    def __init__(self, keys: KeysCollection = "caption", source_key: Hashable = "captions") -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self)
        self.source_key = source_key
        self.drawer = RandCaption()

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Randomizable:
        """Seed the random numbers of the drawing."""
        super().set_random_state(seed, state)
        self.drawer.set_random_state(seed, state)
        return self

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Draw the caption of an item."""
        d = dict(data)
        if self.source_key in d:
            d.update(dict.fromkeys(self.keys, self.drawer(d[self.source_key])))
        return d


class RandSentencesd(RandomizableTransform, MapTransform):
    """Dictionary version of `RandSentences`; arguments as there."""

    def __init__(
        self,
        keys: KeysCollection = "caption",
        prob: float = 0.5,
        keep: tuple[float, float] = (0.3, 1.0),
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self)
        self.sampler = RandSentences(prob, keep)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Randomizable:
        """Seed the random numbers of the sampling."""
        super().set_random_state(seed, state)
        self.sampler.set_random_state(seed, state)
        return self

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Leave out sentences of an item's texts."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.sampler(d[key])
        return d


RandCaptionD = RandCaptionDict = RandCaptiond
RandSentencesD = RandSentencesDict = RandSentencesd
