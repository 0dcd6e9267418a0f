"""What the documents name is there: modules, classes, files, links, pages of the site."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "site" not in page.relative_to(DOCS).parts)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
_DOTTED = re.compile(r"\bcleft_bundle(?:\.\w+)+\b")
_PATH = re.compile(r"(?<![\w/.-])(?:cleft_bundle|configs|scripts|tests|docs)/[\w./-]*\w")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
_MADE = ("configs/experiments",)  # by users


def resolve(name: str) -> Any:
    """What a dotted name stands for, however deep in classes it lies."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):
                pytest.skip(f"needs {error.name}")
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ImportError(name)


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"[^\w -]", "", title.lower()).strip() for title in titles]
    return {"#" + title.replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=[*NAMES, "README", "C"])
def test_every_name_and_path_of_a_page_exists(page):
    text = page.read_text(encoding="utf-8")
    unknown = []
    for name in sorted(set(_DOTTED.findall(text))):
        if name.endswith((".json", ".zip", ".whl")):
            continue
        try:
            resolve(name)
        except (ImportError, AttributeError):
            unknown.append(name)
    paths = {found[0] for found in _PATH.finditer(text) if text[found.end() :][:1] not in ("*", "<")}  # no pattern
    absent = [path for path in sorted(paths) if not (ROOT / path).exists() and path not in _MADE]
    assert (unknown, absent) == ([], [])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere_within_docs(page):
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        aim = (page.parent / target).resolve() if target else page
        assert aim.is_file(), f"{target} is not there"
        assert aim.is_relative_to(DOCS), f"{target} is not on the site"
        assert not anchor or anchor in anchors(aim), f"{target}{anchor}"


def test_the_site_has_every_page_once():
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - plain texts

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    listed = [page.replace("model_card.md", "README.md") for page in pages(config["nav"])]
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def test_a_page_begins_with_one_title():
    for page in PAGES:
        text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        assert text.lstrip().startswith("# "), page
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1, page


def test_how_an_image_flows_names_every_room():
    text = (DOCS / "how_an_image_flows.md").read_text(encoding="utf-8")
    rooms = {path.parent.name for path in (ROOT / "cleft_bundle").glob("*/__init__.py")}
    assert {room for room in rooms if not re.search(rf"cleft_bundle[./]{room}\b", text)} == set()
