"""The image tower of a classifier as model hubs keep one: a folder for Hugging Face's transformers.

The tower is in its own architecture, so that ``AutoModel.from_pretrained`` loads it without code from elsewhere. What
makes scores of its tokens stands beside it: ``head.safetensors`` and, in words and as code that runs with transformers
alone, ``README.md``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DeployedClassifier, FinetunedClassifier, ImageEncoder, ZeroShotClassifier
from cleft_bundle.networks.image_encoder import takes_interpolation
from cleft_bundle.networks.weight_names import renamed
from cleft_bundle.packaging.places import DESCRIPTION
from cleft_bundle.transforms import backbone_statistics

WEIGHTS = "model.safetensors"
PROCESSOR = "preprocessor_config.json"
_LARGEST = 255  # of the 8-bit grey levels that a picture file has
_BILINEAR = 2  # as Pillow counts


def export_transformers(classifier: DeployedClassifier, folder: Path, description: Mapping[str, Any]) -> None:
    """Write the image tower and what scores its tokens.

    Args:
        classifier: a classifier of class weights or a fine-tuned one.
        folder: is made; it receives ``config.json`` and ``model.safetensors`` of the tower,
            ``preprocessor_config.json``, ``head.safetensors``, ``cleft.json`` and ``README.md``.
        description: what :func:`cleft_bundle.packaging.describe` says of the classifier.

    Raises:
        BundleError: where the classifier does not say how its images are normalised, or its tower takes no images.
    """
    if getattr(tower_of(classifier), "takes_patches", False):
        raise BundleError("transformers: a SigLIP 2 tower takes patches, not images; export torchscript or onnx")
    processor = processor_config(classifier.preprocessing)
    folder.mkdir(parents=True)
    write_tower(tower_of(classifier), folder)
    write_json(folder / PROCESSOR, processor)
    save_file(head_tensors(classifier), folder / "head.safetensors", metadata={"format": "pt"})
    write_json(folder / DESCRIPTION, {**description, "pooling": tower_of(classifier).pooling})
    (folder / "README.md").write_text(_card(classifier), encoding="utf-8")


def tower_of(classifier: DeployedClassifier) -> ImageEncoder:
    """The image tower of a classifier.

    Raises:
        BundleError: where it has none.
    """
    tower = getattr(classifier, "image_encoder", None)
    if not isinstance(tower, ImageEncoder):
        raise BundleError(f"{type(classifier).__name__} has no image tower: export from model.pt or finetuned.pt")
    return tower


def write_tower(tower: ImageEncoder, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` of a tower's backbone, under the names of transformers."""
    backbone = tower.backbone
    config = copy.deepcopy(backbone.config)
    config.name_or_path = ""  # where it was loaded from is nobody's business
    config.architectures = [type(backbone).__name__]
    config.save_pretrained(folder)
    names = [name for name, _ in [*backbone.named_parameters(), *backbone.named_buffers()]]
    weights = {name: tensor.contiguous().cpu() for name, tensor in renamed(backbone.state_dict(), names).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def processor_config(preprocessing: Mapping[str, Any]) -> dict[str, Any]:
    """Describe size, mean and standard deviation of the images as a processor of transformers.

    It resizes to the square of the training and normalises. Reading, cropping and windowing are not in its power.

    Args:
        preprocessing: as classifiers keep it: ``image_size`` and the declared ``transforms``.

    Raises:
        BundleError: where no transform, or more than one, normalises.
    """
    mean, std = statistics(preprocessing)
    side = preprocessing["image_size"]
    return {
        **{"image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "do_center_crop": False},
        **{"do_resize": True, "size": {"height": side, "width": side}, "resample": _BILINEAR},
        **{"do_rescale": True, "rescale_factor": 1 / _LARGEST},
        **{"do_normalize": True, "image_mean": mean, "image_std": std},
    }


def statistics(preprocessing: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, three numbers each, that declared transforms normalise images of 0..1 with.

    Raises:
        BundleError: where no transform, or more than one, normalises.
    """
    found = [each for each in preprocessing.get("transforms") or [] if "Normalize" in str(each["_target_"])]
    if len(found) != 1:
        raise BundleError(
            f"preprocessing: {len(found)} of its transforms normalise, and a folder for transformers states one mean "
            "and standard deviation"
        )
    if "backbone" in found[0]:
        mean, std = backbone_statistics(found[0]["backbone"])
        return list(mean), list(std)
    return _three(found[0].get("subtrahend")), _three(found[0].get("divisor"))


def head_tensors(classifier: DeployedClassifier) -> dict[str, torch.Tensor]:
    """Tensors behind the pooled features: ``projection.*`` where there is one, ``weight`` [K, D] and ``bias`` [K].

    The calibrated logits are those of a linear layer on the unit embeddings of the projection, or on the features.
    """
    if isinstance(classifier, ZeroShotClassifier):
        projection = classifier.image_encoder.projection.state_dict()
        weight, bias = classifier.calibrated_head()
        tensors = {f"projection.{name}": value for name, value in projection.items()}
    else:
        assert isinstance(classifier, FinetunedClassifier)  # noqa: S101 - there is no third
        head = classifier.network.head
        weight = head.weight / classifier.temperature
        bias, tensors = head.bias / classifier.temperature + classifier.bias, {}
    tensors |= {"weight": weight, "bias": bias}
    return {name: value.detach().contiguous().cpu() for name, value in tensors.items()}


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that people can read."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def pooling_code(tower: ImageEncoder, model: str = "model") -> str:
    """An expression that gives a tower's features [B, width] of ``pixel_values``, by transformers alone."""
    if tower.pooling == "tokens_prenorm":
        return f"{model}.encoder({model}.embeddings(pixel_values)).last_hidden_state.mean(dim=1)"
    asked = ", interpolate_pos_encoding=True" if takes_interpolation(tower.backbone.forward) else ""
    output = f"{model}(pixel_values=pixel_values{asked})"
    if tower.pooling == "pooled":
        return f"{output}.pooler_output.flatten(1)"
    tokens = f"{output}.last_hidden_state"
    if tower.layout.is_map:
        return f"{tokens}.mean(dim=(2, 3))"
    return f"{tokens}[:, 0]" if tower.pooling == "cls" else f"{tokens}[:, {tower.prefix_tokens}:].mean(dim=1)"


def _three(value: Any) -> list[float]:
    """One number a channel, from one or three; none at all stands for MONAI's own statistics of each image."""
    if value is None:
        raise BundleError("preprocessing: images are normalised by their own statistics, which no processor states")
    return [float(number) for number in np.broadcast_to(np.ravel(np.asarray(value, dtype=float)), 3)]


def _card(classifier: DeployedClassifier) -> str:
    tower = tower_of(classifier)
    projects = isinstance(classifier, ZeroShotClassifier)
    widths = [module.out_features for module in tower.projection.modules() if isinstance(module, torch.nn.Linear)]
    squash = "sigmoid()" if classifier.task == "multilabel" else "softmax(dim=1)"
    return _CARD.format(
        classes=", ".join(classifier.class_names),
        features=pooling_code(tower),
        projection=_PROJECTION[len(widths)].format(tower.width, *widths) + _LOAD if projects else "",
        embedding="F.normalize(projection(features(pixel_values)), dim=1)" if projects else "features(pixel_values)",
        squash=squash,
    )


_PROJECTION = {  # by the number of its linear layers
    1: "projection = nn.Linear({0}, {1})\n",
    2: "projection = nn.Sequential(\n    nn.Linear({0}, {1}), nn.BatchNorm1d({1}), nn.ReLU(),\n"
    "    nn.Linear({1}, {2}), nn.BatchNorm1d({2}, affine=False),\n)\n",
}
_LOAD = """\
projection.load_state_dict({name[11:]: head[name] for name in head if name.startswith("projection.")})
projection.eval()
"""

_CARD = """\
---
library_name: transformers
pipeline_tag: image-feature-extraction
license: other
tags: [medical, radiology, chest-x-ray, mammography, cleft]
---

# Image tower of a CLEFT classifier

Classes: {classes}. For research; not a medical device. The licence is that of the backbone and of the data that it was
trained on.

`AutoModel` gives the tower, and this its features and scores:

```python
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel

folder = Path(".")
processor, model = AutoImageProcessor.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
head = load_file(folder / "head.safetensors")
{projection}

def features(pixel_values):
    return {features}


@torch.no_grad()
def probabilities(pixel_values):
    embedding = {embedding}
    return (embedding @ head["weight"].T + head["bias"]).{squash}
```

`pixel_values` is `processor(image, return_tensors="pt")["pixel_values"]` of a square 8-bit image in which bright is
dense. `cleft.json` names the classes in order, the thresholds and, under `preprocessing`, the transforms of the
training (reading, cropping, windowing, resizing): the processor can only resize and normalise, so prepare images by
`cleft_bundle.transforms.build_transforms` where scores count.
"""
