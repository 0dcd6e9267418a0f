"""Build the site into build/site: run the notebooks, then Zensical, whose warnings are errors.

pip install -c constraints.txt -e ".[docs]" && python docs/site/build.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor
from nbconvert.writers import FilesWriter

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "docs"
PAGES = ROOT / "build" / "docs"  # what mkdocs.yml names
CARD = "model_card.md"  # README.md, as hubs want it, would be the first page of a site
SECONDS = 300  # a cell takes some seconds on an idle machine


def main() -> int:
    """Build the site; the exit status is that of Zensical."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(SOURCE, PAGES, ignore=shutil.ignore_patterns("site", "__pycache__"))
    (PAGES / "README.md").rename(PAGES / CARD)
    for page in PAGES.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"(\]\((?:\.\./)*)README\.md", rf"\1{CARD}", text), encoding="utf-8")
    for notebook in sorted((PAGES / "notebooks").glob("*.md")):
        print(f"running {notebook.name}", flush=True)
        execute(notebook)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "mkdocs.yml"]
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603 - a fixed command
    print(done.stdout)
    # what the docstrings lack is a warning for Zensical, which aborts only on its own
    return done.returncode or int("griffe:" in done.stdout)


def execute(page: Path) -> None:
    """Run a notebook in an empty folder, and put what it shows behind its cells.

    Args:
        page: Markdown as jupytext writes it; it is written anew, with its pictures in a folder beside it.

    Raises:
        CellExecutionError: where a cell fails or takes longer than five minutes.
    """
    work = page.with_suffix(".work")
    work.mkdir()
    notebook = jupytext.read(page)
    runner = ExecutePreprocessor(timeout=SECONDS, kernel_name="python3", coalesce_streams=True)
    runner.preprocess(notebook, {"metadata": {"path": str(work)}})
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, {"output_files_dir": f"{page.stem}_files", "unique_key": page.stem}
    )
    FilesWriter(build_directory=str(page.parent)).write(text, resources, page.stem)
    shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
