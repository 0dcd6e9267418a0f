"""A software bill of materials in CycloneDX: the packages that the bundle runs on here, and the files of its model.

``cyclonedx-py environment`` would list all that is installed, needed or not, and no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from cleft_bundle.extras import require

ROOT = "cleft_bundle"


def write_sbom(path: Path, models: Mapping[str, str]) -> Path:
    """Write the bill of materials.

    Args:
        path: receives the JSON.
        models: names of the model's files to their SHA-256.

    Returns:
        ``path``.

    Raises:
        BundleError: where the packages of the extra ``package`` are missing.

    Source: CycloneDX 1.6, ECMA-424.
    """
    parts = require("cyclonedx.model.component", "package")
    hashes = require("cyclonedx.model", "package")
    bom = require("cyclonedx.model.bom", "package").Bom()
    found = dict(_distributions())
    components = {name: _component(package) for name, package in found.items()}
    for package in components.values():
        bom.components.add(package)
    bom.metadata.component = root = components[canonicalize_name(ROOT)]
    bom.components.discard(root)
    for name, package in found.items():
        needed = [components[other] for other in _required(package) if other in components]
        bom.register_dependency(components[name], needed)
    for file, digest in models.items():
        model = parts.Component(
            name=file, type=parts.ComponentType.MACHINE_LEARNING_MODEL, bom_ref=file, version=root.version
        )
        model.hashes.add(hashes.HashType(alg=hashes.HashAlgorithm.SHA_256, content=digest))
        bom.components.add(model)
    output = require("cyclonedx.output.json", "package").JsonV1Dot6
    path.write_text(output(bom).output_as_string(indent=2) + "\n", encoding="utf-8")
    return path


def _distributions() -> Iterator[tuple[NormalizedName, Distribution]]:
    """This package and all that it needs without extras, as installed: canonical name and distribution."""
    seen: set[NormalizedName] = set()
    waiting = [canonicalize_name(ROOT)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            package = distribution(name)
        except PackageNotFoundError:  # needed on other machines only, or left out by whoever installed it
            continue
        yield name, package
        waiting.extend(_required(package))


def _required(package: Distribution) -> list[NormalizedName]:
    requirements = map(Requirement, package.requires or [])
    return [
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _component(package: Distribution) -> Any:
    parts = require("cyclonedx.model.component", "package")
    licences = require("cyclonedx.factory.license", "package").LicenseFactory()
    name = canonicalize_name(package.metadata["Name"])
    purl = require("packageurl", "package").PackageURL("pypi", None, name, package.version)
    component = parts.Component(
        name=package.metadata["Name"],
        version=package.version,
        purl=purl,
        bom_ref=str(purl),
        type=parts.ComponentType.LIBRARY,
    )
    if licence := _licence(package):
        component.licenses.add(licences.make_from_string(licence))
    return component


def _licence(package: Distribution) -> str | None:
    """The licence that a package states: its expression, its only classifier, or a line of text."""

    def stated(field: str) -> list[str]:
        return package.metadata.get_all(field) or []

    classifiers = [line.rsplit(" :: ", 1)[-1] for line in stated("Classifier") if "License ::" in line]
    lines = [text for text in stated("License") if "\n" not in text]
    found = [*stated("License-Expression"), *(classifiers if len(classifiers) == 1 else []), *lines]
    return found[0] if found else None
