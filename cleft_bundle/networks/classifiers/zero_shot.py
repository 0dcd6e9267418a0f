"""Zero-shot classification: class prompts become one matrix, and the language model is no longer needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F

from cleft_bundle.errors import BundleError, require_one_of
from cleft_bundle.networks.classifiers.deployed_classifier import DeployedClassifier, probabilities
from cleft_bundle.networks.cleft import CLEFT
from cleft_bundle.networks.image_encoder import ImageEncoder
from cleft_bundle.networks.protocol import DualNetwork
from cleft_bundle.networks.weight_kinds import mark_weights
from cleft_bundle.vocabulary import NO_FINDING, Task

__all__ = ["ZeroShotClassifier", "class_weights", "probabilities"]


def embed_classes(
    network: DualNetwork, prompts: Mapping[str, Sequence[str]], tokenized: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Embed K classes by their prompts: those of a class are averaged and normalised (a template ensemble, as in CLIP).

    Args:
        network: the dual encoder.
        prompts: class name to its prompts.
        tokenized: ``input_ids`` and ``attention_mask`` [N, T] of all prompts, in their order.

    Returns:
        unit vectors [K, D], with gradients where the network has any.
    """
    device = network.logit_scale.device
    embedded = network.encode_text(**{key: value.to(device) for key, value in tokenized.items()})
    groups = embedded.split([len(group) for group in prompts.values()])
    return torch.stack([F.normalize(group.mean(dim=0), dim=0) for group in groups])


def oppose(
    positive: torch.Tensor, names: Sequence[str], task: Task, negative: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """Turn class embeddings [K, D] into the weights [K, D] of a linear classifier on image embeddings.

    ``multiclass`` takes the embeddings as they are, so that the softmax over classes is CLIP's. ``multilabel``
    subtracts a negative from each, so that the sigmoid of the score is the softmax between the two, as in CheXzero: the
    embedding [D] that ``negative`` has for the class, else for a finding that of the class "no finding" where there is
    one, else the mean of the other classes; that of "no finding" is the mean of the findings.
    """
    if task == "multiclass":
        return positive
    against = _negatives(positive, list(names))
    given = negative or {}
    return positive - torch.stack([given.get(name, own) for name, own in zip(names, against, strict=True)])


@torch.no_grad()
def class_weights(
    network: DualNetwork,
    prompts: Mapping[str, Sequence[str]],
    tokenize: Callable[[Sequence[str]], dict[str, torch.Tensor]],
    task: Task,
    negatives: Mapping[str, Sequence[str]] | None = None,
) -> torch.Tensor:
    """Turn class prompts into the weights of a linear classifier, see :func:`embed_classes` and :func:`oppose`.

    Args:
        network: the trained dual encoder.
        prompts: class name to its prompts.
        tokenize: gives ``input_ids`` and ``attention_mask`` [N, T] of N captions.
        task: ``multiclass`` (one class per image) or ``multilabel`` (any number).
        negatives: for ``multilabel``, names of classes to prompts that say that the class is absent.

    Returns:
        weights [K, D], classes in the order of ``prompts``.

    Raises:
        BundleError: where there are fewer than two classes, a class has no prompt, the task is unknown, or negatives
            are of no class or come with ``multiclass``.

    Source: Radford et al., "CLIP", ICML 2021; Tiu et al., "CheXzero", Nature Biomedical Engineering 2022.
    """
    check_prompts(prompts, task, negatives)
    training = network.training
    network.eval()
    positive = embed_classes(network, prompts, tokenize([text for group in prompts.values() for text in group]))
    negative = {}
    if negatives:
        texts = tokenize([text for group in negatives.values() for text in group])
        negative = dict(zip(negatives, embed_classes(network, negatives, texts), strict=True))
    network.train(training)
    return oppose(positive, list(prompts), task, negative)


def check_prompts(
    prompts: Mapping[str, Sequence[str]], task: Task, negatives: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Refuse fewer than two classes, a class without a prompt, an unknown task, and negatives that nothing takes.

    Raises:
        BundleError: names what is wrong.
    """
    require_one_of("task", task, get_args(Task))
    if len(prompts) < 2:
        raise BundleError(f"class prompts: zero-shot scores need at least two classes, got {list(prompts)}")
    empty = [name for name, texts in prompts.items() if not texts]
    if empty:
        raise BundleError(f"class prompts: no prompt for {', '.join(empty)}")
    if negatives and task == "multiclass":
        raise BundleError("negative prompts go with task 'multilabel': a softmax sets the classes against each other")
    if strange := [name for name in negatives or {} if name not in prompts]:
        raise BundleError(f"negative prompts: {', '.join(strange)} are none of the classes {', '.join(prompts)}")


def _negatives(positive: torch.Tensor, names: list[str]) -> torch.Tensor:
    """The embedding that speaks against each class, [K, D] unit vectors; see :func:`oppose`."""
    others = (positive.sum(dim=0, keepdim=True) - positive) / (len(names) - 1)
    negative = F.normalize(others, dim=1)
    if NO_FINDING in names:
        index = names.index(NO_FINDING)
        findings = torch.arange(len(names), device=positive.device) != index
        negative[findings] = positive[index]
    return negative


class ZeroShotClassifier(DeployedClassifier):
    """The deployable classifier: image tower, class weights, logit scale and calibration; no language model.

    Its bare state dict is ``models/model.pt``. Besides the weights it holds ``_extra_state``, the settings as JSON in
    a byte tensor: class names, task, the architecture of the image tower, the preprocessing that it was trained with
    and the operating point, so that :func:`cleft_bundle.checkpoints.load_classifier` needs nothing else.

    Args:
        image_encoder: the image tower.
        class_names: this and what follows, see :class:`cleft_bundle.networks.DeployedClassifier`.

    Examples:
        >>> config = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...           "image_size": 28, "patch_size": 14}
        >>> encoder = ImageEncoder(config, embedding_dim=8)
        >>> classifier = ZeroShotClassifier(encoder, ["edema", "mass", "no finding"], "multiclass")
        >>> classifier.class_weights = torch.eye(3, 8)  # training takes these from the prompts, see from_cleft
        >>> scores = classifier.eval()(torch.zeros(2, 3, 28, 28))
        >>> scores.shape, [round(float(total), 4) for total in scores.sum(dim=1)]
        (torch.Size([2, 3]), [1.0, 1.0])
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        class_names: Sequence[str],
        task: Task,
        preprocessing: Mapping[str, Any] | None = None,
        operating_point: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(class_names, task, preprocessing, operating_point, provenance)
        mark_weights(self, 2)
        self.image_encoder = image_encoder
        self.register_buffer("class_weights", torch.zeros(len(self.class_names), image_encoder.embedding_dim))
        self.register_buffer("logit_scale", torch.zeros(()))
        self.class_weights: torch.Tensor
        self.logit_scale: torch.Tensor

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """Embed images [B, 3, H, W]: unit vectors [B, D] of the shared space."""
        return self.image_encoder(image)

    def raw_logits(self, embedding: torch.Tensor) -> torch.Tensor:
        """Scaled cosines [B, K] of embeddings [B, D] with the class weights."""
        return self.logit_scale.exp() * embedding @ self.class_weights.T

    @property
    def tower(self) -> ImageEncoder | None:
        """The image tower whose projected tokens :meth:`embed` averages, if there is one."""
        return self.image_encoder.tower

    @property
    def patch_size(self) -> int | None:
        """Patch size of the image tower, in pixels."""
        return self.image_encoder.patch_size

    def calibrated_head(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [K, D] and biases [K] that give the calibrated logits of unit embeddings."""
        return self.logit_scale.exp() / self.temperature * self.class_weights, self.bias

    def set_head(self, weights: torch.Tensor, bias: torch.Tensor) -> None:
        """Take weights [K, D] and biases [K] in the place of :meth:`calibrated_head`.

        The scale stays, and the temperature becomes 1. Thresholds and limits were chosen for other scores:
        they go.
        """
        device = self.class_weights.device
        self.class_weights = weights.detach().to(self.class_weights) / self.logit_scale.exp()
        chosen_by = {
            key: value for key, value in self.operating_point.items() if key not in ("thresholds", "conformal")
        }
        self.calibrate(1.0, bias.tolist(), {}, **chosen_by)
        self.to(device)

    @property
    def settings(self) -> dict[str, Any]:
        """All that is needed to build this classifier again, as JSON-able values."""
        return {
            "class_names": self.class_names,
            "task": self.task,
            "preprocessing": self.preprocessing,
            "operating_point": self.operating_point,
            "provenance": self.provenance,
            "image_encoder": self.image_encoder.settings,
        }

    def get_extra_state(self) -> torch.Tensor:
        """The settings as UTF-8 bytes of JSON, a uint8 tensor, so that the state dict holds tensors only."""
        return torch.frombuffer(bytearray(json.dumps(self.settings, sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Check that weights being loaded belong to the same classes and task.

        Raises:
            BundleError: where they do not.
        """
        stored = decode_settings(state)
        for key in ("class_names", "task"):
            if stored[key] != self.settings[key]:
                raise BundleError(
                    f"model.pt was built for {key} {stored[key]}, this classifier has {self.settings[key]}"
                )

    @classmethod
    def from_cleft(
        cls,
        network: CLEFT,
        class_names: Sequence[str],
        weights: torch.Tensor,
        task: Task,
        preprocessing: Mapping[str, Any],
    ) -> ZeroShotClassifier:
        """Take the image tower and the scale of a network, with the weights [K, D] of :func:`class_weights`.

        Adapters of the tower are merged into a copy of its weights.
        """
        classifier = cls(network.image_encoder.merged(), class_names, task, preprocessing)
        classifier.class_weights = weights.detach().clone()
        classifier.logit_scale = network.scale.detach().log()
        return classifier.eval()


def decode_settings(state: torch.Tensor) -> dict[str, Any]:
    """Read the settings that :meth:`ZeroShotClassifier.get_extra_state` wrote."""
    return json.loads(state.cpu().numpy().tobytes())
