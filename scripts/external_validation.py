"""External validation: tables for a model of children's chest X-rays that is evaluated on adults of another hospital.

python scripts/external_validation.py tables KERMANY_FOLDER NIH_FOLDER OUT
python scripts/external_validation.py figures REPORT_FOLDER...

`tables` writes a folder for each set, whose labels.csv refers to the images where they are: children (the training,
with its validation patients), adults (all of them), and adults_half and adults_rest, two halves of their patients: the
first for `build_classifier.py --calibrate`, the second to see what that mends. Both are pneumonia against none; the
prompts of these classes go into prompts.json.
docs/evaluation.md has the commands that follow, and what `figures` printed of their reports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fire
import pandas as pd

from cleft_bundle.config import report_errors
from cleft_bundle.data.datasets.folder import TEMPLATE
from cleft_bundle.errors import BundleError

NONE, POSITIVE = "no finding", "pneumonia"
FIGURES = {
    "images, patients": lambda page: f"{page['dataset']['images']}, {page['dataset']['patients']}",
    "temperature": lambda page: f"{page['operating_points']['calibration']['temperature']:.3g}",
    f"AUROC of {POSITIVE}": lambda page: _figure(page["metrics"][f"auroc/{POSITIVE}"]),
    "Brier score": lambda page: _figure(_probabilities(page, "brier")),
    "ECE": lambda page: _figure(_probabilities(page, "ece")),
    f"threshold of {POSITIVE}": lambda page: f"{_point(page)['threshold']:.3f}",
    "sensitivity at it": lambda page: _figure(_point(page)["sensitivity"]),
    "specificity at it": lambda page: _figure(_point(page)["specificity"]),
    "called, of those with and without it": lambda page: _called(_point(page)),
}


def tables(children: str, adults: str, out: str, seed: int = 0) -> None:
    """Write the tables.

    Args:
        children: folder of Kermany's images, with labels.csv: image, finding, patient_id, split.
        adults: folder of NIH's images, with labels.csv: image, finding, patient_id.
        out: receives a folder for each table.
        seed: of the draw of half of the adult patients.
    """
    report_errors()
    young, old = _labels(children), _labels(adults)
    young["finding"] = young["finding"].where(young["finding"] == NONE, POSITIVE)
    found = old["finding"].str.split("|")
    old = old[found.map(lambda names: "Pneumonia" in names or names == ["No Finding"])]
    old["finding"] = old["finding"].eq("No Finding").map({True: NONE, False: POSITIVE})
    patients = pd.Series(old["patient_id"].unique())
    half = old["patient_id"].isin(patients.sample(frac=0.5, random_state=seed))
    _write(young, out, "children")
    _write(old.assign(split="test"), out, "adults")
    calibration = pd.concat([young[young["split"] == "train"], old[half].assign(split="valid")])
    _write(calibration, out, "adults_half")
    _write(old[~half].assign(split="test"), out, "adults_rest")
    words = {"caption": [TEMPLATE], "templates": [TEMPLATE.format(findings="{class}")]}
    text = json.dumps({**words, "classes": {NONE: {}, POSITIVE: {}}}, indent=2)
    Path(out, "prompts.json").write_text(text + "\n", encoding="utf-8")


def figures(*reports: str) -> None:
    """Print a Markdown table of reports, a column each, and one of the AUROC by the groups that a report knows.

    Args:
        reports: folders with report.json.
    """
    report_errors()
    pages = {Path(folder).name: _report(folder) for folder in reports}
    print("| | " + " | ".join(pages) + " |")
    print("| --- |" + " --- |" * len(pages))
    for name, read in FIGURES.items():
        print(f"| {name} | " + " | ".join(read(page) for page in pages.values()) + " |")
    rows = {
        f"{group}: {value}": None for page in pages.values() for group, found in page["subgroups"].items()
        for value in found["values"]
    }  # fmt: skip
    for name in rows:
        group, _, value = name.partition(": ")
        found = [page["subgroups"].get(group, {"values": {}})["values"].get(value, {}) for page in pages.values()]
        cells = [_figure(one[f"auroc/{POSITIVE}"]) if f"auroc/{POSITIVE}" in one else "-" for one in found]
        print(f"| AUROC, {name} | " + " | ".join(cells) + " |")


def _report(folder: str) -> dict[str, Any]:
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise BundleError(f"{path} does not exist: cleft report writes it")
    page = json.loads(path.read_text())
    if POSITIVE not in page["operating_points"]["classes"]:
        raise BundleError(f"{path}: no threshold of {POSITIVE} is known")
    return page


def _labels(folder: str) -> pd.DataFrame:
    path = Path(folder) / "labels.csv"
    if not path.is_file():
        raise BundleError(f"{path} does not exist")
    table = pd.read_csv(path, dtype=str)
    table["image"] = [str((path.parent / name).resolve()) for name in table["image"]]
    return table


def _write(table: pd.DataFrame, out: str, name: str) -> None:
    path = Path(out, name, "labels.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
    counts = table["finding"].value_counts()
    print(
        f"{path}: {len(table)} images of {table['patient_id'].nunique()} patients, {counts[POSITIVE]} with {POSITIVE}"
    )


def _probabilities(page: dict[str, Any], name: str) -> dict[str, Any]:
    """A figure of probabilities: one number where classes exclude each other, else that of the positive class."""
    return page["metrics"].get(f"{name}/{POSITIVE}") or page["metrics"][name]


def _called(point: dict[str, Any]) -> str:
    return f"{point['tp']} of {point['tp'] + point['fn']}, {point['fp']} of {point['fp'] + point['tn']}"


def _point(page: dict[str, Any]) -> dict[str, Any]:
    return page["operating_points"]["classes"][POSITIVE]


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


if __name__ == "__main__":
    fire.Fire({"tables": tables, "figures": figures})
