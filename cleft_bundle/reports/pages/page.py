"""One HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from cleft_bundle.files import replacing
from cleft_bundle.secrets import masked


def write_page(path: str | Path, package: str, **values: Any) -> str:
    """Fill the template ``report.html`` of a package and write it at once or not at all.

    Args:
        path: the HTML file; its folder is made where it is missing.
        package: package whose ``report.html`` extends the ``base.html`` of this one.
        values: what the template names; all text in them is escaped, and credentials in it are masked.

    Returns:
        the path as text.
    """
    loader = ChoiceLoader([PackageLoader(name, ".") for name in (package, "cleft_bundle.reports.pages")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.get_template("report.html").render(**values)
    with replacing(path) as temporary:
        temporary.write_text(masked(html), encoding="utf-8")
    return str(Path(path))
