"""Embeddings of texts beside a classifier: what was embedded once needs no language model again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from cleft_bundle.data.pseudonyms import digests
from cleft_bundle.errors import BundleError
from cleft_bundle.files import replacing
from cleft_bundle.networks.backbones import value_fingerprint

#: Name of the bank that a training writes beside ``model.pt``.
VOCABULARY = "vocabulary.safetensors"
_FORMAT = "1"
_DIGEST_BYTES = 16


def space_of(image_encoder: nn.Module) -> str:
    """Fingerprint of the space that an image tower shares with texts: that of its weights, adapters merged.

    Classifiers of one training have the same, whatever their classes and calibration.
    """
    return value_fingerprint(image_encoder.state_dict().items())


def space_of_state(state: Mapping[str, torch.Tensor]) -> str:
    """:func:`space_of` the tower in the state dict of a classifier, ``model.pt``."""
    prefix = "image_encoder."
    tower = [(name.removeprefix(prefix), value) for name, value in state.items() if name.startswith(prefix)]
    return value_fingerprint(tower)


class TextBank:
    """Unit embeddings of texts in the space of an image tower.

    Args:
        space: :func:`space_of` the tower.
        texts: N different texts, or what stands for them.
        embeddings: float32 [N, D], unit vectors.
        template: the prompt, with the slot ``{class}``, that findings were put into; "" where there is none.
        hashed: keep texts by their digests alone, as where somebody typed them.
    """

    def __init__(
        self,
        space: str,
        texts: Sequence[str] = (),
        embeddings: torch.Tensor | None = None,
        template: str = "",
        hashed: bool = False,
    ) -> None:
        self.space = space
        self.template = template
        self.hashed = hashed
        rows = torch.zeros(0, 0) if embeddings is None else embeddings.detach().float().cpu()
        self._rows = dict(zip(self._keys(texts), rows, strict=True))

    @property
    def texts(self) -> list[str]:
        """The texts, or their digests where they are hashed."""
        return list(self._rows)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._rows)

    def find(self, texts: Sequence[str]) -> torch.Tensor | None:
        """Unit embeddings [N, D] of N texts; None where one of them is not here."""
        keys = self._keys(texts)
        return torch.stack([self._rows[key] for key in keys]) if all(key in self._rows for key in keys) else None

    def add(self, texts: Sequence[str], embeddings: torch.Tensor) -> None:
        """Take N texts and their unit embeddings [N, D]."""
        self._rows |= zip(self._keys(texts), embeddings.detach().float().cpu(), strict=True)

    def save(self, path: str | Path) -> None:
        """Write the bank, as a whole or not at all."""
        about = {"format": _FORMAT, "space": self.space, "template": self.template, "hashed": str(self.hashed)}
        with replacing(path) as temporary:
            save_file(
                {"embeddings": torch.stack(list(self._rows.values())).contiguous()},
                temporary,
                metadata={**about, "texts": json.dumps(self.texts)},
            )

    @classmethod
    def load(cls, path: str | Path, space: str) -> TextBank:
        """Read a bank.

        Args:
            path: the file.
            space: of the tower that it is to be used with.

        Raises:
            BundleError: where it is no such file, or belongs to another model.
        """
        try:
            with safe_open(path, "pt") as file:
                about, rows = file.metadata() or {}, file.get_tensor("embeddings")
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{path} is no bank of texts: {type(error).__name__}") from error
        if about.get("format") != _FORMAT:
            raise BundleError(f"{path} is no bank of texts of format {_FORMAT}")
        if about["space"] != space:
            raise BundleError(f"{path} belongs to another model: it was written with another image tower")
        bank = cls(space, template=about["template"], hashed=about["hashed"] == "True")
        bank._rows = dict(zip(json.loads(about["texts"]), rows, strict=True))
        return bank

    def _keys(self, texts: Sequence[str]) -> list[str]:
        return digests(texts, _DIGEST_BYTES) if self.hashed else list(texts)
