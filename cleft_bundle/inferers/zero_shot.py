"""Zero-shot inference with a dual encoder inside MONAI's evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer

from cleft_bundle.data.token_checks import check_class_tokens
from cleft_bundle.networks import class_weights
from cleft_bundle.networks.classifiers.zero_shot import check_prompts, embed_classes, oppose
from cleft_bundle.networks.protocol import DualNetwork
from cleft_bundle.vocabulary import Task


class ZeroShotInferer(Inferer):
    """Score images against class prompts; the prompts are embedded once per evaluation, never per batch.

    The same object stands among the evaluator's handlers: attached, it embeds the prompts anew whenever an evaluation
    begins, with the weights that the network has then.

    Args:
        prompts: class name to its prompts, in the order of the scores.
        tokenize: the tokenizer of the prompts.
        task: ``multiclass`` or ``multilabel``.
        retrieval: embed each image's own caption too, for retrieval metrics.
        negatives: for ``multilabel``, names of classes to prompts that say that the class is absent.
        variants: score the images against each prompt alone as well, see :attr:`variant_prompts`.

    Raises:
        BundleError: what :func:`cleft_bundle.networks.classifiers.zero_shot.check_prompts` and
            :func:`cleft_bundle.data.token_checks.check_class_tokens` refuse.
    """

    def __init__(
        self,
        prompts: Mapping[str, Sequence[str]],
        tokenize: Callable[[Sequence[str]], dict[str, torch.Tensor]],
        task: Task,
        retrieval: bool = True,
        negatives: Mapping[str, Sequence[str]] | None = None,
        variants: bool = False,
    ) -> None:
        super().__init__()
        check_prompts(prompts, task, negatives)
        check_class_tokens(prompts, tokenize, negatives)
        self.variants = variants
        self.negatives = dict(negatives or {})
        self.retrieval = retrieval
        self.prompts = dict(prompts)
        self.tokenize = tokenize
        self.task: Task = task
        self._weights: torch.Tensor | None = None
        self.variant_weights: torch.Tensor | None = None

    @property
    def weights(self) -> torch.Tensor:
        """The class weights [K, D] of the last :meth:`embed_prompts`.

        Raises:
            RuntimeError: where it was never called, because this inferer is not among the handlers.
        """
        if self._weights is None:
            raise RuntimeError("ZeroShotInferer has no class weights: list it among the evaluator's handlers")
        return self._weights

    @property
    def variant_prompts(self) -> list[dict[str, str]]:
        """Sets of one prompt per class: the first of each, the second, and so on; short lists begin again.

        Empty where no class has several, or where they are not asked for.
        """
        count = max(map(len, self.prompts.values())) if self.variants else 1
        return [
            {name: texts[number % len(texts)] for name, texts in self.prompts.items()}
            for number in (range(count) if count > 1 else ())
        ]

    def plain(self) -> ZeroShotInferer:
        """The same for scores of the classes alone, without retrieval and single prompts."""
        other = copy(self)
        other.retrieval = other.variants = False
        return other

    def attach(self, engine: Engine) -> None:
        """Embed the class prompts whenever the engine starts an epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.embed_prompts(engine.network))

    def embed_prompts(self, network: DualNetwork) -> torch.Tensor:
        """Compute and keep the class weights [K, D] of a network, and those of the V variants [V, K, D]."""
        self._weights = class_weights(network, self.prompts, self.tokenize, self.task, self.negatives)
        single = [{name: [text] for name, text in prompts.items()} for prompts in self.variant_prompts]
        found = [class_weights(network, prompts, self.tokenize, self.task, self.negatives) for prompts in single]
        self.variant_weights = torch.stack(found) if found else None
        return self.weights

    def __call__(
        self, inputs: torch.Tensor, network: DualNetwork, *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """Embed a batch and score it.

        Args:
            inputs: images [B, 3, H, W].
            network: the dual encoder.
            args: further arguments of the network.
            kwargs: its text arguments, see :meth:`cleft_bundle.networks.CLEFT.forward`.

        Returns:
            ``logits`` [B, K], ``image_embedding`` [B, D], for variants ``variant_logits`` [B, V, K], and for retrieval
            ``text_embedding`` [B, D].

        Raises:
            RuntimeError: where there are no :attr:`weights`.
        """
        weights = self.weights
        embedded = {}
        if self.retrieval:
            pair = network(inputs, *args, **kwargs)
            image = pair.image
            embedded = {"image_embedding": image, "text_embedding": pair.text}
        else:
            image = network.encode_image(inputs)
            embedded = {"image_embedding": image}
        found = {"logits": network.scale * image @ weights.T, **embedded}
        if self.variant_weights is not None:
            found["variant_logits"] = network.scale * torch.einsum("bd,vkd->bvk", image, self.variant_weights)
        return found


class ClassPromptInferer(Inferer):
    """Score images against class prompts while the prompts' context is being learnt.

    The classes are embedded once per call, for all images of the batch, and with gradients.

    Args:
        prompts: class name to its prompts, in the order of the scores.
        tokenize: the tokenizer of the prompts.
        task: ``multiclass`` or ``multilabel``.

    Raises:
        BundleError: as :class:`ZeroShotInferer` does.
    """

    def __init__(
        self,
        prompts: Mapping[str, Sequence[str]],
        tokenize: Callable[[Sequence[str]], dict[str, torch.Tensor]],
        task: Task,
    ) -> None:
        super().__init__()
        check_prompts(prompts, task)
        check_class_tokens(prompts, tokenize)
        self.prompts = dict(prompts)
        self.tokenized = tokenize([text for group in prompts.values() for text in group])
        self.task: Task = task

    def __call__(self, inputs: torch.Tensor, network: DualNetwork, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Score a batch.

        Args:
            inputs: images [B, 3, H, W], or embeddings [B, D].
            network: the dual encoder with its prompt.
            args: not used.
            kwargs: not used; the captions play no part.

        Returns:
            logits [B, K] for :class:`cleft_bundle.losses.ClassificationLoss`.
        """
        weights = oppose(embed_classes(network, self.prompts, self.tokenized), list(self.prompts), self.task)
        return network.scale * network.encode_image(inputs) @ weights.T
