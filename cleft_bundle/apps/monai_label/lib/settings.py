"""Settings of this application, as ``monailabel start_server --conf`` gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cleft_bundle
from cleft_bundle.errors import BundleError, nearest, require_one_of
from cleft_bundle.files import parse_object

#: What each value says; the keys that MONAI Label's own applications take are let pass.
KEYS = ("bundle", "model", "cleft", "network", "values", "template", "task_type", "device")
_MONAI_LABEL = (
    "models",
    "preload",
    "sam2",
    "server_mode",
    "skip_scoring",
    "skip_strategies",
    "skip_trainers",
    "zoo_source",
)
TEMPLATE = "this is a chest x ray of a patient with {class}"
TASK_TYPES = ("classification", "detection")


@dataclass(frozen=True)
class Settings:
    """Files and options of the server.

    Args:
        model: the classifier, ``model.pt``.
        bundle: root folder of the bundle, with ``configs``; None: nothing can be trained, and no prompts are scored.
        cleft: the trained weights whose language side scores prompts, ``cleft.pt``; None: no prompts are scored.
        network: config files that say which network ``cleft`` belongs to, after ``train.json``.
        values: further config values of that network.
        template: turns the name of a class into a prompt, by its slot ``{class}``.
        task_type: the type that the models are announced with.
        device: where the networks run; None: CUDA if there is any, else the CPU.
    """

    model: Path
    bundle: Path | None
    cleft: Path | None
    network: Sequence[str]
    values: Mapping[str, Any]
    template: str
    task_type: str
    device: str | None

    @classmethod
    def of(cls, conf: Mapping[str, str], app_dir: str | Path) -> Settings:
        """Read the values of ``--conf``.

        Args:
            conf: keys and values; all of :data:`KEYS` may be absent.
            app_dir: folder of the application; ``bundle`` may be the name of a folder in its ``model``.

        Raises:
            BundleError: names the key that is unknown or whose value is wrong.
        """
        for key in conf:
            if key not in KEYS and key not in _MONAI_LABEL:
                raise BundleError(f"--conf {key} is unknown{nearest(key, KEYS)}; known: {', '.join(KEYS)}")
        bundle = _bundle(conf.get("bundle"), Path(app_dir) / "model")
        model = Path(conf["model"]).absolute() if "model" in conf else bundle and bundle / "models" / "model.pt"
        if model is None:
            raise BundleError("no classifier to serve: pass --conf model FILE, or --conf bundle FOLDER")
        cleft = _cleft(conf.get("cleft"), model) if bundle else None
        network = [name.strip() for name in conf.get("network", "").split(",") if name.strip()]
        for name in network:
            if bundle is None or not (bundle / "configs" / name).is_file():
                raise BundleError(f"--conf network: there is no {name} in the folder configs of the bundle {bundle}")
        template = conf.get("template", TEMPLATE)
        if "{class}" not in template:
            raise BundleError(f"--conf template: expected a text with the slot {{class}}, got {template!r}")
        task_type = conf.get("task_type", TASK_TYPES[0])
        require_one_of("--conf task_type", task_type, TASK_TYPES)
        values = parse_object(conf.get("values", "{}"), "--conf values")
        return cls(model, bundle, cleft, network, values, template, task_type, conf.get("device"))


def _bundle(given: str | None, folder: Path) -> Path | None:
    """The folder that is named, or the checkout that this package was installed from where it is one."""
    if given is None:
        checkout = Path(cleft_bundle.__file__).resolve().parents[1]
        return checkout if (checkout / "configs" / "train.json").is_file() else None
    for found in (Path(given).absolute(), folder / given):
        if (found / "configs" / "train.json").is_file():
            return found
    raise BundleError(f"--conf bundle: {given} is no folder with configs/train.json, nor is {folder / given}")


def _cleft(given: str | None, model: Path) -> Path | None:
    """The file that is named, or the one beside the classifier where there is one; ``none`` is none."""
    if given is None:
        beside = model.with_name("cleft.pt")
        return beside if beside.is_file() else None
    if given == "none":
        return None
    if not Path(given).is_file():
        raise BundleError(f"--conf cleft: {given} does not exist; none switches prompts off")
    return Path(given).absolute()
