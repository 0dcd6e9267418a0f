"""Training on the final labels of the datastore, by MONAI Label's bundle task."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import monai.bundle
from filelock import FileLock, Timeout
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.tasks.train.bundle import BundleTrainTask

from cleft_bundle.config import report_errors
from cleft_bundle.data import write_datalist
from cleft_bundle.data.item import Item
from cleft_bundle.errors import BundleError, cause_of, require_one_of
from cleft_bundle.files import save_text
from cleft_bundle.literals import LANGUAGE, literal

from ..model import ServedModel
from ..trainers.labelled import Labelled, divide, labelled_items, read_sides, write_sides

logger = logging.getLogger(__name__)

#: Method to the overlays of configs/train.json that it is made of.
METHODS: Mapping[str, Sequence[str]] = {
    "linear": ("label_training.json",),
    "prompt": ("prompt_tuning.json", "label_training.json", "label_prompt.json"),
    "image_tower": ("finetune.json", "label_training.json", "label_image_tower.json"),
}
#: What becomes of the new classifier.
PUBLISH = ("not worse", "always", "never")
FOLDER = "label_training"

_KEY_METRIC = "auroc_macro"
_SWITCHED_OFF = ("", "none")
_NOT_OURS = (
    *("train#trainer#max_epochs", "train#dataset#data", "validate#dataset#data", "train#handlers"),
    "tracking",  # the configs track their runs themselves
)


class CleftTrainTask(BundleTrainTask):
    """Train a classifier on the final labels, measure it beside the served one, and publish it.

    It writes into the folder ``label_training`` beside the served classifier: ``split.json``, pseudonyms of patients
    with their splits, which later trainings keep; ``model.pt`` and ``model.json``, the new classifier and its figures;
    ``training.json``, what came of it; MLflow's database. The served classifier is not touched before all of that is
    done.

    Args:
        bundle: root folder of the bundle, with ``configs`` and ``models``.
        model: what is served.
        conf: the server's ``--conf`` values.
        network: config files that say which network ``cleft`` belongs to, such as ``net_small.json``.
        values: further config values of the network, such as ``text_backbone``.
        cleft: the weights whose language side method ``prompt`` learns prompts for; None: it is not offered.
    """

    def __init__(
        self,
        bundle: str | Path,
        model: ServedModel,
        conf: dict[str, str],
        network: Sequence[str] = (),
        values: Mapping[str, Any] | None = None,
        cleft: Path | None = None,
    ) -> None:
        super().__init__(str(bundle), conf, enable_tracking=True, load_strict=True)
        self.model = model
        self.network = list(network)
        self.values = dict(values or {})
        self.cleft = cleft
        self.folder = model.path.parent / FOLDER
        self.description = "Trains the classifier on the final labels: linear head, prompts or image tower"

    @property
    def methods(self) -> list[str]:
        """The methods that this server can train: prompts need the language side, ``cleft.pt``."""
        return [name for name in METHODS if name != "prompt" or self.cleft is not None]

    def config(self) -> dict[str, Any]:
        """Settings that a request may change, with the defaults; of a list, the first is the default."""
        given = super().config()
        kept = ("device", "val_split", "tracking", "tracking_uri", "tracking_experiment_name", "run_id")
        return {
            "method": self.methods,
            "max_epochs": 0,  # 0: as the config of the method has it; the linear head is fitted, not stepped
            "publish": list(PUBLISH),
            "seed": 0,
            "split_seed": 0,
            **{key: given[key] for key in kept},
        }

    def stats(self) -> dict[str, Any]:
        """Result of the last training that ended."""
        try:
            return json.loads((self.folder / "training.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, and publish what is not worse.

        Args:
            request: values of :meth:`config`.
            datastore: whose final labels are trained on.

        Returns:
            ``method``, the figures of :func:`cleft_bundle.engines.finish_label_training`, ``published``, ``reason`` and
            ``model``, SHA-256 of what is served now.

        Raises:
            BundleError: what is wrong with the request, the labels or an image, or that another training is running.
        """
        report_errors()
        options = {key: value[0] if isinstance(value, list) else value for key, value in self.config().items()}
        given = {key: value[0] if isinstance(value, list) else value for key, value in request.items()}
        request = {**options, **given, "multi_gpu": False}
        require_one_of("method", request["method"], self.methods)
        require_one_of("publish", request["publish"], PUBLISH)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".request.lock", timeout=0):
                return self._train(request, datastore)
        except Timeout as error:
            raise BundleError("a training of this classifier is running: wait, or stop it by DELETE /train/") from error

    def run_single_gpu(self, request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Run the configs of the method; an empty ``run_id`` is ``training``."""
        files = ["train.json", *self.network, *METHODS[request["method"]]]
        overrides["seed"] = int(request["seed"])
        if request["method"] == "prompt":
            overrides["pretrained"] = str(self.cleft)
        if epochs := int(request["max_epochs"]):
            overrides["epochs"] = epochs
        if str(request["tracking"] or "").lower() in _SWITCHED_OFF:
            overrides["tracking_uri"] = ""
        monai.bundle.run(
            run_id=request.get("run_id") or "training",
            meta_file=self.bundle_metadata_path,
            config_file=[os.path.join(self.bundle_path, "configs", name) for name in files],
            **overrides,
        )

    def _train(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        for name in ("model.pt", "model.json"):  # a training that fails leaves no earlier one's to be published
            (self.folder / name).unlink(missing_ok=True)
        try:
            super().__call__(request, datastore)
        except Exception as error:
            _raise_cause(error)
        finally:
            for path in (self._datalist, self._datalist.with_name(f"{self._datalist.name}.gz")):
                path.unlink(missing_ok=True)  # it names files, and those of a PACS are called by their UIDs
        outcome = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        before, after = (outcome[when].get(_KEY_METRIC) for when in ("before", "after"))
        published, reason = True, f"validation AUROC {before} before, {after} after"
        if request["publish"] == "never":
            published, reason = False, "not asked for"
        elif request["publish"] == "not worse" and None not in (before, after) and after < before:
            published, reason = False, f"worse: {reason}"
        if published:
            self.model.publish(self.folder / "model.pt")
        result = {"method": request["method"], **outcome, "published": published, "reason": reason}
        result["model"] = self.model.digest
        save_text(json.dumps(result, indent=1), self.folder / "training.json")
        logger.info("training by %s: %s (%s)", request["method"], "published" if published else "not published", reason)
        return result

    def _fetch_datalist(self, request: dict[str, Any], datastore: Datastore) -> list[Item]:
        final = DefaultLabelTag.FINAL.value
        labelled = [
            Labelled(image, datastore.get_image_uri(image), datastore.get_label_uri(label, final),
                     datastore.get_image_info(image))
            for image in datastore.get_labeled_images()
            if (label := datastore.get_label_by_image_id(image, final))
        ]  # fmt: skip
        classifier = self.model.classifier
        return labelled_items(labelled, classifier.class_names, classifier.task)

    def _partition_datalist(
        self, datalist: list[Item], request: dict[str, Any], shuffle: bool = False
    ) -> tuple[list[Item], list[Item]]:
        """Divide by patient, into the file that the configs read."""
        names, task = self.model.class_names, self.model.classifier.task
        sides = self.folder / "split.json"
        splits = divide(
            datalist, names, task, float(request["val_split"]), int(request["split_seed"]), read_sides(sides)
        )
        write_sides(splits, sides)
        write_datalist(splits, self._datalist, self.folder, names)
        logger.info("%d labelled images, of which %d for validation", len(datalist), len(splits["validation"]))
        return splits["train"], splits["validation"]

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        """Nothing: the configs load the served classifier themselves, and strictly."""

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Turn MONAI Label's overrides into values of these configs."""
        # the datalist is a file, so that no log and no record of the run quotes a path of an image
        for key in _NOT_OURS:
            overrides.pop(key, None)
        for key, value in overrides.items():  # what a client has named is no expression
            if isinstance(value, str) and value.startswith(LANGUAGE):
                overrides[key] = literal(value)
        overrides |= {
            **self.values,
            "served_model": str(self.model.path),
            "models_dir": str(self.model.path.parent),
            "output_dir": str(self.folder),
            "datalist_file": str(self._datalist),
        }
        return overrides

    @property
    def _datalist(self) -> Path:
        return self.folder / "datalist.json"


def _raise_cause(error: BaseException) -> NoReturn:
    """Raise the BundleError that MONAI has wrapped, or what was raised where there is none."""
    raise cause_of(error) or error
