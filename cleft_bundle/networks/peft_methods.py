"""Adapters of a tower: each method of parameter-efficient fine-tuning with what training must know of it.

The methods are the peft library's and so are their values: ``peft.LoraConfig`` and its like, named in a config or given
as objects. What stands around them here completes them by the model at hand and answers what towers, training and
checkpoints ask. :class:`Lora` and the others at the end have CLEFT's values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.extras import require

#: Layers that make queries and values, as models name them: what LoRA adapts where peft does not know the architecture.
ATTENTION = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
    ("query_proj", "value_proj"),
    ("q", "v"),
    ("c_attn",),
    ("qkv_proj",),
    ("query_key_value",),
    ("qkv",),
    ("Wqkv",),
    ("att_proj",),
)


class PeftMethod:
    """Base of all methods; its answers are those of one that adds nothing to a model.

    Attributes:
        name: what configs call it.
        virtual_tokens: positions of the model's window that it takes.
        recomputes: whether it goes with gradient checkpointing.
    """

    name: str
    virtual_tokens: int = 0
    recomputes: bool = True

    def __str__(self) -> str:
        return self.name

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Adapt a frozen model and return it, its own weights untouched.

        Raises:
            BundleError: where the architecture has no layers that the method knows, a named target matches none, or a
                value of the method is out of range.
        """
        raise NotImplementedError

    def base(self, adapted: Any) -> Any:
        """The model itself, below whatever :meth:`apply` put around it."""
        return adapted

    def prefix(self, model: Any, rows: int, dtype: torch.dtype) -> Any:
        """Keys and values before each of so many rows, as transformers takes them; None where there are none."""
        return None

    def penalty(self, model: Any) -> torch.Tensor | float:
        """Term that is added to the training loss."""
        return 0.0

    def begin(self, model: Any, updates: int) -> None:
        """Be told, before the first of them, how many updates of the weights a training will take."""

    def after_update(self, model: Any, update: int) -> None:
        """Do what follows an update of the weights, counted from 1."""

    def state_dict(self, model: Any) -> dict[str, Any]:
        """State that a training needs besides the weights to be resumed."""
        return {}

    def load_state_dict(self, model: Any, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` gave."""

    def keeps(self, name: str) -> bool:
        """True where a parameter belongs into checkpoints although no optimizer sees it."""
        return False


class Frozen(PeftMethod):
    """``none``: the model stays as it is; only the projection learns."""

    name = "none"

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Return the model as it is."""
        return model


class Full(PeftMethod):
    """``full``: every parameter of the model is trained."""

    name = "full"

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Return the model with gradients switched on."""
        return model.requires_grad_(True)


class Adapters(PeftMethod):
    """Layers that a config of peft puts beside or in front of those of a model.

    Without ``target_modules`` the layers are those that peft lists for the architecture (for GPT-2 and Llama these are
    CLEFT's), else those of :data:`ATTENTION` that the model has.

    Args:
        config: such as ``peft.LoraConfig``; it stays as it is.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.name = "dora" if getattr(config, "use_dora", False) else str(config.peft_type.value).lower()

    def apply(self, model: PreTrainedModel) -> nn.Module:
        """Put the layers where they belong."""
        config = copy.deepcopy(self.config)
        self._complete(config, model)
        try:
            return _peft().get_peft_model(model, config)
        except (TypeError, ValueError) as error:
            raise BundleError(f"{self.name}: {' '.join(str(error).split())[:300]}") from error

    def base(self, adapted: Any) -> Any:
        """The model below peft's."""
        return adapted.get_base_model()

    def _complete(self, config: Any, model: PreTrainedModel) -> None:
        """Add to a config what the model decides."""
        if not hasattr(config, "target_modules"):
            return
        kind = config.peft_type.value
        config.target_modules = self._targets(model, config.target_modules, f"{kind}_TARGET_MODULES")
        if hasattr(config, "feedforward_modules"):
            config.feedforward_modules = self._targets(model, config.feedforward_modules, f"{kind}_FEEDFORWARD_MODULES")
        if hasattr(config, "fan_in_fan_out") and not isinstance(config.target_modules, str):
            config.fan_in_fan_out = _is_transposed(model, config.target_modules)

    def _targets(self, model: PreTrainedModel, given: Sequence[str] | str | None, table: str) -> Sequence[str] | str:
        """The layers to adapt, each of which must exist: those given, those known, or those found; or a pattern."""
        kind = model.config.model_type
        known = getattr(require("peft.utils.constants", "train"), f"TRANSFORMERS_MODELS_TO_{table}_MAPPING", {})
        linear = {name for name, layer in model.named_modules() if _is_linear(layer)}
        ends = {name.rsplit(".", 1)[-1] for name in linear}
        targets = known.get(kind) if given is None else given
        if not targets and "FEEDFORWARD" not in table and "IA3" not in table:
            targets = next((names for names in ATTENTION if ends.issuperset(names)), None)
        listed = ", ".join(sorted(ends))
        if not targets:
            raise BundleError(f"{self.name}: no target_modules are known for {kind!r}; its linear layers are {listed}")
        if isinstance(targets, str):  # a pattern, or peft's "all-linear"
            return targets
        missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in linear)]
        if missing:
            raise BundleError(
                f"{self.name}: target_modules {', '.join(missing)} match no layer; the linear layers are {listed}"
            )
        return sorted(targets)


class PrefixAdapters(Adapters):
    """Learnt keys and values in front of the caption in every layer, of ``peft.PrefixTuningConfig``.

    They take positions of the window, and do not go with gradient checkpointing.
    """

    recomputes = False

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.name = "prefix"
        if not config.num_virtual_tokens or config.num_virtual_tokens < 1:
            raise BundleError(f"prefix: num_virtual_tokens is {config.num_virtual_tokens}, expected 1 or more")
        self.virtual_tokens = int(config.num_virtual_tokens)

    def _complete(self, config: Any, model: PreTrainedModel) -> None:
        config.task_type = "FEATURE_EXTRACTION"  # of a bare model

    def prefix(self, model: Any, rows: int, dtype: torch.dtype) -> Any:
        """Keys and values in the type of the model: peft takes that of the first parameter, which may be trained."""
        prefix = model.get_prompt(rows)
        for layer in prefix.layers:
            layer.keys, layer.values = layer.keys.to(dtype), layer.values.to(dtype)
        return prefix


class RankedAdapters(Adapters):
    """LoRA in the form of a singular value decomposition, whose ranks are divided among the layers while it trains.

    Args:
        config: ``peft.AdaLoraConfig``. Its ``total_step`` may be any number, as the training sets it.

    Source: Zhang et al., "AdaLoRA", ICLR 2023, equation 4 (the penalty) and algorithm 1.
    """

    STATE = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of peft's RankAllocator

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.init_r < config.target_r:
            raise BundleError(f"adalora: init_r is {config.init_r}, expected at least target_r = {config.target_r}")

    def penalty(self, model: Any) -> torch.Tensor:
        """Penalty that keeps the factors orthogonal: the mean distance of their Gram matrices from one."""
        factors = [p for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name]
        grams = [p @ p.T if len(p) < p.shape[1] else p.T @ p for p in factors]
        off = [gram - torch.eye(len(gram), device=gram.device) for gram in grams]
        return self.config.orth_reg_weight * torch.stack([difference.norm() for difference in off]).mean()

    def begin(self, model: Any, updates: int) -> None:
        """Spread the pruning over the training."""
        model.base_model.rankallocator.set_total_step(updates)

    def after_update(self, model: Any, update: int) -> None:
        """Prune the ranks that matter least."""
        model.base_model.update_and_allocate(update)

    def state_dict(self, model: Any) -> dict[str, Any]:
        """The running importances of all ranks."""
        return {name: dict(getattr(model.base_model.rankallocator, name)) for name in self.STATE}

    def load_state_dict(self, model: Any, state: Mapping[str, Any]) -> None:
        """Go on with the importances of an interrupted run."""
        for name, values in state.items():
            setattr(model.base_model.rankallocator, name, dict(values))

    def keeps(self, name: str) -> bool:
        """Peft counts the ranks that a layer still has in a parameter without gradient."""
        return ".ranknum." in name


class Lora(Adapters):
    """``lora``: low-rank updates beside frozen weights, ``peft.LoraConfig`` with CLEFT's values.

    Args:
        r: rank of the update, 1 or more.
        alpha: the update is scaled by ``alpha / r``.
        dropout: on the input of the update, 0 to below 1.
        target_modules: names of the layers to adapt; None takes those known for the architecture.

    Source: Hu et al., "LoRA", ICLR 2022.
    """

    _dora = False

    def __init__(
        self, r: int = 8, alpha: int = 32, dropout: float = 0.1, target_modules: Sequence[str] | None = None
    ) -> None:
        values = {"lora_alpha": alpha, "lora_dropout": dropout, "target_modules": target_modules}
        super().__init__(_peft().LoraConfig(r=r, **values, use_dora=self._dora))


class Dora(Lora):
    """``dora``: LoRA on the direction of the weights and a learnt magnitude, with LoRA's arguments.

    Source: Liu et al., "DoRA", ICML 2024.
    """

    _dora = True


class Ia3(Adapters):
    """``ia3``: learnt vectors that rescale keys, values and the feed-forward's inner activations.

    Args:
        target_modules: names of the layers to rescale; None takes those known for the architecture (GPT-2: ``c_attn``
            and ``mlp.c_proj``).
        feedforward_modules: those of them whose input is rescaled instead of the output.

    Source: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
    NeurIPS 2022.
    """

    def __init__(
        self, target_modules: Sequence[str] | None = None, feedforward_modules: Sequence[str] | None = None
    ) -> None:
        if (target_modules is None) != (feedforward_modules is None):
            raise BundleError("ia3: target_modules and feedforward_modules are given together or not at all")
        super().__init__(_peft().IA3Config(target_modules=target_modules, feedforward_modules=feedforward_modules))


class Prefix(PrefixAdapters):
    """``prefix``: learnt keys and values in front of the caption in every layer.

    Args:
        virtual_tokens: how many, 1 or more. They take positions of the window.

    Source: Li and Liang, "Prefix-Tuning", ACL 2021. The default is CLEFT's.
    """

    def __init__(self, virtual_tokens: int = 20) -> None:
        super().__init__(_peft().PrefixTuningConfig(num_virtual_tokens=virtual_tokens))


class AdaLora(RankedAdapters):
    """``adalora``: :class:`RankedAdapters` with CLEFT's ranks.

    Args:
        init_r: rank of every layer at the start, at least ``target_r``.
        target_r: mean rank of the layers at the end, 1 or more.
        alpha: scale of the update.
        dropout: on the input of the update, 0 to below 1.
        orthogonality: weight of the penalty, 0 or more.
        target_modules: names of the layers to adapt; None takes those known for the architecture.
    """

    def __init__(
        self,
        init_r: int = 12,
        target_r: int = 8,
        alpha: int = 32,
        dropout: float = 0.1,
        orthogonality: float = 0.5,
        target_modules: Sequence[str] | None = None,
    ) -> None:
        ranks = {"init_r": init_r, "target_r": target_r, "orth_reg_weight": orthogonality}
        values = {"lora_alpha": alpha, "lora_dropout": dropout, "target_modules": target_modules}
        super().__init__(_peft().AdaLoraConfig(**ranks, **values, total_step=2**31))


METHODS: dict[str, Callable[[], PeftMethod]] = {
    **{"lora": Lora, "dora": Dora, "ia3": Ia3, "prefix": Prefix, "adalora": AdaLora},
    **{"none": Frozen, "full": Full},
}
#: What asks for more than layers, by the name of peft's type.
KINDS: dict[str, type[Adapters]] = {"PREFIX_TUNING": PrefixAdapters, "ADALORA": RankedAdapters}


def resolve_peft(method: Any) -> PeftMethod:
    """Take a method by its name, with CLEFT's values, by a config of peft, or as it is.

    Raises:
        BundleError: where there is no method of this name, or the config is of a method that learns a prompt.
    """
    if isinstance(method, PeftMethod):
        return method
    kind = getattr(method, "peft_type", None)
    if kind is None:
        require_one_of("peft", method, METHODS)
        return METHODS[method]()
    if method.is_prompt_learning and kind.value not in KINDS:
        raise BundleError(f"peft: {kind.value} learns a prompt, for which configs/prompt_tuning.json is there")
    return KINDS.get(kind.value, Adapters)(method)


def _peft() -> Any:
    """The peft library: imported when a model is adapted, so that inference does without it."""
    return require("peft", "train")


def _is_transposed(model: PreTrainedModel, targets: Sequence[str]) -> bool:
    """Whether the targets keep their weights as GPT-2's Conv1D does, which peft must be told."""
    return any(
        type(layer).__name__ == "Conv1D" for name, layer in model.named_modules() if name.endswith(tuple(targets))
    )


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
