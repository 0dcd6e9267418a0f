"""How the language model is adapted: one small config object a method of parameter-efficient fine-tuning.

Each object checks its own values and applies itself to a model by way of the peft library. Without ``target_modules``
the layers are those that peft lists for the architecture; for GPT-2 and Llama these are CLEFT's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.extras import require


@dataclass(frozen=True)
class PeftMethod:
    """What all methods have in common."""

    name: ClassVar[str]

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Adapt a frozen model and return it, its own weights untouched.

        Raises:
            BundleError: where the architecture has no layers that the method knows, or a named target matches none.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Frozen(PeftMethod):
    """``none``: the language model stays as it is; only the projection learns."""

    name: ClassVar[str] = "none"

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Return the model as it is."""
        return model


@dataclass(frozen=True)
class Full(PeftMethod):
    """``full``: every parameter of the language model is trained."""

    name: ClassVar[str] = "full"

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Return the model with gradients switched on."""
        return model.requires_grad_(True)


@dataclass(frozen=True)
class Lora(PeftMethod):
    """``lora``: low-rank updates beside frozen weights.

    Args:
        r: rank of the update, 1 or more.
        alpha: the update is scaled by ``alpha / r``.
        dropout: on the input of the update, 0 to below 1.
        target_modules: names of the layers to adapt; None takes those known for the architecture.

    Source: Hu et al., "LoRA", ICLR 2022. The defaults are CLEFT's.
    """

    name: ClassVar[str] = "lora"
    dora: ClassVar[bool] = False

    r: int = 8
    alpha: int = 32
    dropout: float = 0.1
    target_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _at_least_one(self.name, r=self.r)
        _is_dropout(self.name, self.dropout)

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Put low-rank updates beside the target layers."""
        peft = _peft()
        targets = _targets(self.name, model, self.target_modules, _known("LORA_TARGET_MODULES"))
        return peft.get_peft_model(
            model,
            peft.LoraConfig(
                r=self.r,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                use_dora=self.dora,
                target_modules=targets,
                fan_in_fan_out=_is_transposed(model, targets),
            ),
        )


@dataclass(frozen=True)
class Dora(Lora):
    """``dora``: LoRA on the direction of the weights and a learnt magnitude, with LoRA's arguments.

    Source: Liu et al., "DoRA", ICML 2024.
    """

    name: ClassVar[str] = "dora"
    dora: ClassVar[bool] = True


@dataclass(frozen=True)
class Ia3(PeftMethod):
    """``ia3``: learnt vectors that rescale keys, values and the feed-forward's inner activations.

    Args:
        target_modules: names of the layers to rescale; None takes those known for the architecture (GPT-2: ``c_attn``
            and ``mlp.c_proj``).
        feedforward_modules: those of them whose input is rescaled instead of the output.

    Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
    NeurIPS 2022.
    """

    name: ClassVar[str] = "ia3"

    target_modules: Sequence[str] | None = None
    feedforward_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if (self.target_modules is None) != (self.feedforward_modules is None):
            raise BundleError("ia3: target_modules and feedforward_modules are given together or not at all")

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Put a scaling vector on each target layer."""
        peft = _peft()
        targets = _targets(self.name, model, self.target_modules, _known("IA3_TARGET_MODULES"))
        feedforward = _targets(self.name, model, self.feedforward_modules, _known("IA3_FEEDFORWARD_MODULES"))
        return peft.get_peft_model(
            model,
            peft.IA3Config(
                target_modules=targets,
                feedforward_modules=feedforward,
                fan_in_fan_out=_is_transposed(model, targets),
            ),
        )


@dataclass(frozen=True)
class Prefix(PeftMethod):
    """``prefix``: learnt keys and values in front of the caption in every layer.

    Args:
        virtual_tokens: how many, 1 or more. They take positions of the window.

    Source: Li and Liang, "Prefix-Tuning", ACL 2021. The default is CLEFT's.
    """

    name: ClassVar[str] = "prefix"

    virtual_tokens: int = 20

    def __post_init__(self) -> None:
        _at_least_one(self.name, virtual_tokens=self.virtual_tokens)

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Add the prefix; :class:`cleft_bundle.networks.TextEncoder` hands it to the model."""
        peft = _peft()
        return peft.get_peft_model(
            model,
            peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.virtual_tokens),
        )


@dataclass(frozen=True)
class AdaLora(PeftMethod):
    """``adalora``: LoRA in the form of a singular value decomposition, whose ranks are divided among the layers.

    :class:`cleft_bundle.handlers.RankAllocation` prunes while training goes on.

    Args:
        init_r: rank of every layer at the start, at least ``target_r``.
        target_r: mean rank of the layers at the end, 1 or more.
        alpha: scale of the update.
        dropout: on the input of the update, 0 to below 1.
        orthogonality: weight of the penalty that keeps the factors orthogonal, 0 or more.
        target_modules: names of the layers to adapt; None takes those known for the architecture.

    Source: Zhang et al., "AdaLoRA", ICLR 2023. The ranks are CLEFT's.
    """

    name: ClassVar[str] = "adalora"

    init_r: int = 12
    target_r: int = 8
    alpha: int = 32
    dropout: float = 0.1
    orthogonality: float = 0.5
    target_modules: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _at_least_one(self.name, target_r=self.target_r)
        _is_dropout(self.name, self.dropout)
        if self.init_r < self.target_r:
            raise BundleError(f"adalora: init_r is {self.init_r}, expected at least target_r = {self.target_r}")
        if self.orthogonality < 0:
            raise BundleError(f"adalora: orthogonality is {self.orthogonality}, expected 0 or more")

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Put decomposed updates beside the target layers."""
        peft = _peft()
        targets = _targets(self.name, model, self.target_modules, _known("ADALORA_TARGET_MODULES"))
        return peft.get_peft_model(
            model,
            peft.AdaLoraConfig(
                init_r=self.init_r,
                target_r=self.target_r,
                lora_alpha=self.alpha,
                lora_dropout=self.dropout,
                orth_reg_weight=self.orthogonality or 1.0,  # peft wants a positive one; 0 is handled by the text tower
                target_modules=targets,
                fan_in_fan_out=_is_transposed(model, targets),
                total_step=2**31,  # until RankAllocation knows the length of the training
            ),
        )


METHODS: dict[str, type[PeftMethod]] = {
    method.name: method for method in (Lora, Dora, Ia3, Prefix, AdaLora, Frozen, Full)
}


def resolve_peft(method: str | PeftMethod) -> PeftMethod:
    """Take a method by its name, with default values, or as it is.

    Raises:
        BundleError: where there is no method of this name.
    """
    if isinstance(method, PeftMethod):
        return method
    require_one_of("peft", method, METHODS)
    return METHODS[method]()


def _peft() -> Any:
    """The peft library: imported when a language model is built, so that inference does without it."""
    return require("peft", "train")


def _known(kind: str) -> Mapping[str, Sequence[str]]:
    """What peft lists by architecture."""
    return getattr(require("peft.utils.constants", "train"), f"TRANSFORMERS_MODELS_TO_{kind}_MAPPING")


def _targets(
    method: str, model: PreTrainedModel, given: Sequence[str] | None, known: Mapping[str, Sequence[str]]
) -> list[str]:
    """The layers to adapt: those given, or those known for the architecture, each of which must exist."""
    linear = {name for name, layer in model.named_modules() if _is_linear(layer)}
    listed = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
    targets = list(known.get(model.config.model_type, ()) if given is None else given)
    if not targets:
        kind = model.config.model_type
        raise BundleError(f"{method}: no target_modules are known for {kind!r}; its linear layers are {listed}")
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in linear)]
    if missing:
        raise BundleError(
            f"{method}: target_modules {', '.join(missing)} match no layer; the linear layers are {listed}"
        )
    return targets


def _is_transposed(model: PreTrainedModel, targets: Sequence[str]) -> bool:
    """Whether the targets keep their weights as GPT-2's Conv1D does, which peft must be told."""
    return any(
        type(layer).__name__ == "Conv1D" for name, layer in model.named_modules() if name.endswith(tuple(targets))
    )


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"


def _at_least_one(method: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise BundleError(f"{method}: {name} is {value}, expected 1 or more")


def _is_dropout(method: str, value: float) -> None:
    if not 0 <= value < 1:
        raise BundleError(f"{method}: dropout is {value}, expected 0 to below 1")
