"""The bundle as one zip, as MONAI's model zoo has them: what serves the classifier, and nothing of its training."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai.bundle import ConfigParser

from cleft_bundle import __version__
from cleft_bundle.checkpoints.classifier_file import load_deployed
from cleft_bundle.errors import BundleError
from cleft_bundle.files import sha256
from cleft_bundle.networks import DeployedClassifier
from cleft_bundle.packaging.export import FORMS, network_data_format
from cleft_bundle.packaging.sbom import write_sbom
from cleft_bundle.packaging.wheel import check_wheel, write_wheel

NAME = "cleft_bundle"
MANIFEST, SBOM, LARGE_FILES, README = "manifest.sha256", "sbom.cdx.json", "large_files.yml", "README.md"
#: What goes into the zip, as patterns below the bundle's root. Whatever they do not name stays out: images, tables,
#: caches, runs, checkpoints of the training.
CONTENTS = (
    *("LICENSE", "README.md", "CHANGELOG.md", "docs/*.md", "docs/*.txt", "docs/images/*.jpg", "docs/images/*.png"),
    *("configs/*.json", "configs/logging.conf", "configs/prompts/*.json", "configs/tokenizer_tiny/*.json"),
)
LARGEST = 25 * 10**6  # bytes of a file of weights that the repository of MONAI's model zoo takes
_METADATA = ("configs/metadata.json", "metadata.json")
_CARD = "docs/README.md"
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LINK = re.compile(r"(\]\()(?!https?:|#)")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # so that the same files give the same zip


def package_bundle(
    bundle_root: str | Path,
    model_path: str | Path,
    out_dir: str | Path,
    forms: Sequence[str] = (),
    wheel: str | Path | None = None,
    weights_url: str = "",
) -> Path:
    """Write ``cleft_bundle_v<version>.zip``, which unpacks into one folder ``cleft_bundle``.

    It holds the configs, the documents, the licence and ``models/model.pt``; ``wheels/``, this package for pip;
    ``metadata.json`` with the input and output of that very classifier; ``README.md`` with the header of the model
    card, which hubs index; ``large_files.yml``, which names the files that MONAI's model zoo does not take into its
    repository; ``manifest.sha256``, which ``sha256sum -c`` checks from within the folder; and ``sbom.cdx.json``, the
    software bill of materials in CycloneDX.

    Args:
        bundle_root: the folder of ``configs`` and ``docs``.
        model_path: the classifier, a ``model.pt`` or a ``finetuned.pt``.
        out_dir: receives the zip.
        forms: of :data:`cleft_bundle.packaging.FORMS`, exported files beside ``model_path`` that go along.
        wheel: of this package; None makes it.
        weights_url: address of the folder that will have the large files; without it their addresses are left empty.

    Returns:
        the zip.

    Raises:
        BundleError: where the folder is no bundle, the model is no classifier, an exported file or the wheel is
            missing, or so are the packages of the extra ``package``.

    Source: https://docs.monai.io/en/stable/mb_specification.html
    """
    root, model = Path(bundle_root), Path(model_path)
    if not (root / _METADATA[0]).is_file():
        raise BundleError(f"{root} is no bundle, as it has no {_METADATA[0]}: `cleft init FOLDER` writes one")
    classifier = load_deployed(model)
    files = {path.relative_to(root).as_posix(): path for pattern in CONTENTS for path in sorted(root.glob(pattern))}
    files["models/model.pt"] = model
    for form in forms:
        suffix, _ = FORMS[form]
        path = model.with_name(f"{model.stem}{suffix}")
        if not path.is_file():
            raise BundleError(f"{path} does not exist: cleft export --forms {form} writes it")
        files[f"models/model{suffix}"] = path
    archive = Path(out_dir, f"{NAME}_v{__version__}.zip")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".writing.") as temporary:
        folder = Path(temporary)
        of_pip = write_wheel(folder) if wheel is None else check_wheel(wheel)
        files[f"wheels/{of_pip.name}"] = of_pip
        files |= _written(root, folder, classifier, files, weights_url)
        _zip(folder / archive.name, files)
        (folder / archive.name).replace(archive)
    return archive


def _written(
    root: Path, folder: Path, classifier: DeployedClassifier, files: Mapping[str, Path], weights_url: str
) -> dict[str, Path]:
    """The files that say what the others are, written into a folder."""
    digests = {name: sha256(path) for name, path in files.items()}
    models = {name: digest for name, digest in digests.items() if name.startswith("models/")}
    large = {name: digest for name, digest in models.items() if files[name].stat().st_size > LARGEST}
    metadata = ConfigParser.load_config_file(root / _METADATA[0])
    metadata["network_data_format"] = network_data_format(classifier)
    texts = {"metadata.json": json.dumps(metadata, indent=4) + "\n", README: _readme(root)}
    if large:
        texts[LARGE_FILES] = _large_files(large, weights_url)
    made = {name: folder / name for name in texts}
    for name, text in texts.items():
        made[name].write_text(text, encoding="utf-8")
    made[_METADATA[0]] = made["metadata.json"]
    made[SBOM] = write_sbom(folder / SBOM, models)
    digests |= {name: sha256(path) for name, path in made.items()}
    made[MANIFEST] = folder / MANIFEST
    made[MANIFEST].write_text("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)))
    return made


def _readme(root: Path) -> str:
    """README.md below the header of the model card; the card itself where there is no README.md."""
    own, card = (path.read_text(encoding="utf-8") if path.is_file() else "" for path in (root / README, root / _CARD))
    header = _FRONT_MATTER.match(card)
    body = own or _LINK.sub(r"\1docs/", _FRONT_MATTER.sub("", card))
    return f"{header[0] if header else ''}{_FRONT_MATTER.sub('', body)}"


def _large_files(digests: Mapping[str, str], weights_url: str) -> str:
    """What MONAI's ``download_large_files`` reads; a file that is there already is only checked."""
    lines = ["large_files:"]
    for name, digest in sorted(digests.items()):
        url = f"{weights_url.rstrip('/')}/{name}" if weights_url else ""
        lines += [f"  - path: {json.dumps(name)}", f"    url: {json.dumps(url)}"]
        lines += [f'    hash_val: "{digest}"', '    hash_type: "sha256"']
    return "\n".join(lines) + "\n"


def _zip(path: Path, files: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{NAME}/{name}", date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            with files[name].open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(1 << 20):
                    target.write(block)
