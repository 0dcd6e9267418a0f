"""The classifier that a server serves: loaded strictly, loaded anew when its file is replaced, and replaced at once."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cleft_bundle.checkpoints import load_classifier, sha256
from cleft_bundle.errors import BundleError
from cleft_bundle.files import file_stamp, replacing
from cleft_bundle.inference import Scorer
from cleft_bundle.networks import ZeroShotClassifier

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scores:
    """Scores of N images by a classifier, and the file that it came from.

    Args:
        probabilities: float32 [N, K] in the order of the classes; NaN for an image that cannot be read.
        embeddings: float32 [N, D], unit vectors of the shared space; NaN likewise.
        failures: from the path of each image that cannot be read to the reason.
        digest: SHA-256 of the classifier's file.
    """

    probabilities: np.ndarray
    embeddings: np.ndarray
    failures: dict[str, str]
    digest: str


@dataclass(frozen=True)
class Loaded:
    """One version of the classifier: all that belongs to one and the same file.

    Args:
        classifier: in evaluation mode, on the device.
        digest: SHA-256 of the file.
        scorer: scores images by it.
    """

    classifier: ZeroShotClassifier
    digest: str
    scorer: Scorer = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scorer", Scorer(self.classifier, self.classifier.bias.device))

    def score(self, paths: Sequence[str | Path]) -> Scores:
        """Score images by :class:`cleft_bundle.inference.Scorer`.

        Args:
            paths: N image files, each once.
        """
        names = [str(path) for path in paths]
        found = self.scorer.score(({"image": name} for name in names), embeddings=True)
        failures = {name: error for name, error in zip(names, found.errors, strict=True) if error}
        embeddings = np.full((len(names), self.classifier.image_encoder.embedding_dim), np.nan, np.float32)
        if len(failures) < len(names) and found.embeddings is not None:
            embeddings = found.embeddings
        return Scores(found.scores.astype(np.float32), embeddings, failures, self.digest)


class ServedModel:
    """``model.pt`` as a server needs it.

    The file is looked at whenever the classifier is asked for, and loaded again where it has been replaced. A file that
    cannot be loaded is refused at the start; later it is reported, and what was loaded before goes on serving.

    Args:
        path: the classifier's file.
        device: where it runs; None: CUDA if there is any, else the CPU.

    Raises:
        BundleError: where the file does not exist or does not fit.
    """

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        self.path = Path(path)
        self.device = torch.device(device or ("cuda:0" if torch.cuda.is_available() else "cpu"))
        self._lock = threading.Lock()
        self._seen, self._loaded = self._load()

    @property
    def backup(self) -> Path:
        """Path at which :meth:`publish` keeps the classifier that it replaces."""
        return self.path.with_name(f"{self.path.stem}_previous{self.path.suffix}")

    def current(self) -> Loaded:
        """The classifier as its file is now; hold on to it where several steps must use the same one."""
        with self._lock:
            stamp = file_stamp(self.path, inode=True)
            if stamp != self._seen:
                self._seen = stamp  # a file that is refused is not tried again until it changes
                try:
                    self._seen, self._loaded = self._load()
                    logger.info("serving %s, SHA-256 %s", self.path, self._loaded.digest)
                except BundleError as error:
                    logger.error("%s; the classifier %s goes on serving", error, self._loaded.digest)
            return self._loaded

    @property
    def classifier(self) -> ZeroShotClassifier:
        """The classifier, in evaluation mode."""
        return self.current().classifier

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes."""
        return self.current().classifier.class_names

    @property
    def digest(self) -> str:
        """SHA-256 of the file that :attr:`classifier` was loaded from."""
        return self.current().digest

    def score(self, image_paths: Sequence[str | Path]) -> Scores:
        """Score images, see :meth:`Loaded.score`."""
        return self.current().score(image_paths)

    def publish(self, new_path: str | Path) -> str:
        """Put another classifier in the place of this one: servers of the file go over to it without a restart.

        The classifier that was served is kept as :attr:`backup`, and publishing that one goes back to it.

        Args:
            new_path: a classifier's file, which is copied.

        Returns:
            its SHA-256.

        Raises:
            BundleError: where the file does not fit itself, or is of other classes; what is served then stays.
        """
        published = load_classifier(new_path)
        if published.class_names != self.class_names or published.task != self.classifier.task:
            raise BundleError(
                f"{new_path} is a {published.task} classifier of {', '.join(published.class_names)}; served is a "
                f"{self.classifier.task} one of {', '.join(self.class_names)}"
            )
        with replacing(self.path) as temporary:
            shutil.copyfile(new_path, temporary)  # before the backup is replaced: it may be the backup
            with replacing(self.backup) as kept:
                shutil.copyfile(self.path, kept)
        return self.digest

    def _load(self) -> tuple[str, Loaded]:
        while True:
            stamp = file_stamp(self.path, inode=True)
            loaded = Loaded(load_classifier(self.path).to(self.device), sha256(self.path))
            if file_stamp(self.path, inode=True) == stamp:  # else it was replaced between the two
                return stamp, loaded
