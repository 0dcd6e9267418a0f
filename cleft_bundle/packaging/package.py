"""The bundle as one zip, as MONAI's model zoo has them: what serves the classifier, and nothing of its training."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from cleft_bundle import __version__
from cleft_bundle.checkpoints.classifier_file import load_deployed
from cleft_bundle.errors import BundleError
from cleft_bundle.files import sha256
from cleft_bundle.packaging.export import FORMS, network_data_format
from cleft_bundle.packaging.sbom import write_sbom

NAME = "cleft_bundle"
MANIFEST, SBOM = "manifest.sha256", "sbom.cdx.json"
#: What goes into the zip, as patterns below the bundle's root. Whatever they do not name stays out: images, tables,
#: caches, runs, checkpoints of the training.
CONTENTS = (
    *("LICENSE", "README.md", "CHANGELOG.md", "docs/*.md", "docs/*.txt", "docs/images/*.jpg", "docs/images/*.png"),
    *("configs/*.json", "configs/logging.conf", "configs/prompts/*.json", "configs/tokenizer_tiny/*.json"),
)
_METADATA = ("configs/metadata.json", "metadata.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same files give the same zip


def package_bundle(
    bundle_root: str | Path, model_path: str | Path, out_dir: str | Path, forms: Sequence[str] = ()
) -> Path:
    """Write ``cleft_bundle_v<version>.zip``, which unpacks into one folder ``cleft_bundle``.

    It holds the configs, the documents, the licence and ``models/model.pt``; ``metadata.json`` with the input and
    output of that very classifier; ``manifest.sha256``, which ``sha256sum -c`` checks from within the folder; and
    ``sbom.cdx.json``, the software bill of materials in CycloneDX.

    Args:
        bundle_root: the folder of ``configs`` and ``docs``.
        model_path: the classifier, a ``model.pt`` or a ``finetuned.pt``.
        out_dir: receives the zip.
        forms: of :data:`cleft_bundle.packaging.FORMS`, exported files beside ``model_path`` that go along.

    Returns:
        the zip.

    Raises:
        BundleError: where the model is no classifier, an exported file is missing, or so are the packages of the extra
            ``package``.

    Source: https://docs.monai.io/en/stable/mb_specification.html
    """
    root, model = Path(bundle_root), Path(model_path)
    classifier = load_deployed(model)
    files = {path.relative_to(root).as_posix(): path for pattern in CONTENTS for path in sorted(root.glob(pattern))}
    files["models/model.pt"] = model
    for form in forms:
        suffix, _ = FORMS[form]
        path = model.with_name(f"{model.stem}{suffix}")
        if not path.is_file():
            raise BundleError(f"{path} does not exist: python scripts/export.py --forms {form} writes it")
        files[f"models/model{suffix}"] = path
    archive = Path(out_dir, f"{NAME}_v{__version__}.zip")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".writing.") as temporary:
        folder = Path(temporary)
        metadata = ConfigParser.load_config_file(root / _METADATA[0])
        metadata["network_data_format"] = network_data_format(classifier)
        for name in _METADATA:
            files[name] = folder / "metadata.json"
        files["metadata.json"].write_text(json.dumps(metadata, indent=4) + "\n", encoding="utf-8")
        files[SBOM] = write_sbom(folder / SBOM, {name: sha256(files[name]) for name in files if "models/" in name})
        files[MANIFEST] = folder / MANIFEST
        files[MANIFEST].write_text(
            "".join(f"{sha256(files[name])}  {name}\n" for name in sorted(files.keys() - {MANIFEST}))
        )
        _zip(folder / archive.name, files)
        (folder / archive.name).replace(archive)
    return archive


def _zip(path: Path, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with files[name].open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(1 << 20):
                    target.write(block)
