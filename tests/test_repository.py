"""What may be committed, and whether constraints.txt holds what pyproject.toml asks for."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cleft_bundle import __version__

pytest.importorskip("pre_commit", reason="needs the extra test")
MIB = 1024 * 1024
OWN = "cleft-bundle"


@pytest.fixture
def check(root, tmp_path):
    """Run one hook of this repository on another one that tracks a file; give its exit status and what it says."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("needs git")
    folder = tmp_path / "repository"
    folder.mkdir()
    shutil.copy(root / ".pre-commit-config.yaml", folder)
    tools = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | tools
    environment["PRE_COMMIT_HOME"] = str(tmp_path / "home")

    def run(hook, name, size):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        for command in (["init", "--quiet"], ["add", "--all"]):
            subprocess.run([git, *command], cwd=folder, env=environment, check=True)
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", hook]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize(
    ("hook", "name", "size"),
    [
        ("large-files", "models/model.pt", MIB + 1),
        ("large-files", "docs/images/model.pt", MIB + 1),
        ("dashes", "--help/model.pt", 1),
        ("dashes", "docs/-v.md", 1),
    ],
)
def test_what_may_not_be_committed(check, hook, name, size):
    status, said = check(hook, name, size)
    assert status == 1
    assert name in said


@pytest.mark.parametrize(
    ("hook", "name", "size"),
    [
        ("large-files", "models/model.pt", MIB),
        ("large-files", "docs/images/picture.png", 2 * MIB),
        ("dashes", "docs/two-words.md", 1),
    ],
)
def test_what_may(check, hook, name, size):
    status, said = check(hook, name, size)
    assert status == 0, said


@pytest.fixture(scope="module")
def pins(root):
    """Version of each package that constraints.txt names."""
    lines = re.sub(r"#.*", "", (root / "constraints.txt").read_text()).split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_pins_are_of_any_build(pins):
    assert not [version for version in pins.values() if "+" in version], "a build of one machine, such as 2.13.0+cpu"


def test_every_direct_dependency_is_pinned_to_a_version_that_is_admitted(root, pins):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(text) for group in (project["dependencies"], *extras) for text in group]
    wanted = [each for each in wanted if canonicalize_name(each.name) != OWN]
    assert len(wanted) > 40
    assert [str(each) for each in wanted if not each.specifier.contains(pins[canonicalize_name(each.name)])] == []


def test_every_direct_dependency_has_a_lowest_version(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(text) for group in (project["dependencies"], *extras) for text in group]
    free = [each.name for each in wanted if ">=" not in str(each.specifier) and canonicalize_name(each.name) != OWN]
    assert free == [], "CI could not tell the lowest"


def dependencies(name, seen):
    """Whatever the installed package needs here, itself included."""
    if name in seen:
        return
    try:
        wanted = [Requirement(text) for text in distribution(name).requires or ()]
    except PackageNotFoundError:
        return
    seen.add(name)
    for each in wanted:
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            dependencies(canonicalize_name(each.name), seen)


def test_what_dependencies_need_is_pinned_too(pins):
    seen = set()
    for name in list(pins):
        dependencies(name, seen)
    assert len(seen) > 60
    assert seen - set(pins) == set(), "make constraints"


def test_one_version_stands_everywhere(root):
    citation = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    metadata = json.loads((root / "metadata.json").read_text())["version"]
    assert citation
    assert {citation[1], project, metadata} == {__version__}


def test_the_metadata_name_what_the_bundle_really_needs(root, pins):
    """Whoever runs the model zoo's checks installs these, and no name that merely sounds like one (itk for itk-io)."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    names = {canonicalize_name(Requirement(text).name) for text in needed}
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    named = {canonicalize_name(name): version for name, version in metadata["required_packages_version"].items()}
    assert named.pop(OWN) == __version__
    named |= {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    assert named | {"numpy": metadata["numpy_version"]} == {name: pins[name] for name in names}


def test_the_model_card_has_the_header_that_hubs_index(root):
    _, header, card = (root / "docs" / "README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(header)
    assert (values["license"], values["library_name"]) == ("apache-2.0", "monai")
    assert {"monai", "medical", "radiology"} <= set(values["tags"])
    assert card.lstrip().startswith("# Model card")


def prose(text):
    """Lines of a Markdown page that can be wrapped: no code, table, picture, header or text that a script fills in."""
    text = re.sub(r"<!-- table: .*?<!-- end -->", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    fenced = text.startswith("---\n")
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```") or (line == "---" and number > 1):
            fenced = not fenced if line != "---" else False
        elif not fenced and not line.lstrip().startswith(("|", "![", "<")):
            yield number, line


def test_prose_keeps_to_120_columns(root):
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob(".github/**/*.md")]
    assert len(pages) > 20
    lines = [(page, *found) for page in pages for found in prose(page.read_text(encoding="utf-8"))]
    assert [f"{page.name}:{number}" for page, number, line in lines if len(line) > 120 and " " in line.strip()] == []
