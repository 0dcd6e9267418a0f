"""Open-i, the Indiana University collection: chest X-rays with their reports and MeSH headings.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval", JAMIA 2016,
https://openi.nlm.nih.gov. ``ecgen-radiology/*.xml`` holds the reports with the ids of their images; the images are PNG
files named by these ids. The Kaggle copy names its files a little differently and adds a table of projections.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from cleft_bundle.data import tables
from cleft_bundle.data.captions.prompts import PromptSet, describe_findings
from cleft_bundle.data.captions.reports import Report, read_openi
from cleft_bundle.data.datasets import items as parts
from cleft_bundle.data.item import Item, make_item
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.errors import BundleError
from cleft_bundle.names import plain_name
from cleft_bundle.progress import LONG, bar
from cleft_bundle.vocabulary import NO_FINDING

logger = logging.getLogger(__name__)

#: What the caption templates may name.
SLOTS = ("findings", "findings_text", "impression", "indication", "view")
#: Headings of the collection that a class may be, as :func:`name_findings` writes them.
FINDINGS = (
    *(NO_FINDING, "opacity", "cardiomegaly", "calcinosis", "pulmonary atelectasis", "calcified granuloma"),
    *("cicatrix", "pleural effusion", "airspace disease", "atherosclerosis", "density", "indwelling catheters"),
    *("deformity", "scoliosis", "nodule", "implanted medical device", "granulomatous disease"),
    *("surgical instruments", "bone fractures", "emphysema", "pulmonary congestion", "osteophyte", "infiltrate"),
    *("spondylosis", "thickening", "granuloma", "chronic obstructive pulmonary disease", "hiatal hernia"),
    *("pulmonary edema", "pneumonia", "kyphosis", "foreign bodies", "arthritis", "diaphragmatic eventration"),
    *("consolidation", "inserted tube", "metabolic bone diseases", "spinal fusion", "lucency", "medical device"),
    *("pneumothorax", "pulmonary fibrosis", "stents", "mass", "hyperlucent lung", "interstitial lung diseases"),
    *("heart failure", "pulmonary hypertension", "pericardial effusion", "bronchiectasis", "tuberculosis"),
)
#: Headings that stand for other names, or for none.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "normal": (NO_FINDING,),
    "pulmonary emphysema": ("emphysema",),
    "bullous emphysema": ("emphysema",),
    "hydropneumothorax": ("pneumothorax", "pleural effusion"),
    "hemopneumothorax": ("pneumothorax", "hemothorax"),
    "technical quality of image unsatisfactory": (),
}
#: Headings that name a part of the body: what is wrong with it is in their qualifiers, so they are no findings.
ANATOMY = frozenset(
    {
        *("abdomen", "adipose tissue", "aorta", "aorta, thoracic", "blood vessels", "bone and bones", "cardiac shadow"),
        *("cervical vertebrae", "costophrenic angle", "diaphragm", "heart", "heart atria", "heart ventricles"),
        *("humerus", "lumbar vertebrae", "lung", "lymph nodes", "markings", "mediastinum", "pleura"),
        *("pulmonary artery", "ribs", "shoulder", "spine", "sulcus", "thoracic vertebrae", "thorax", "trachea"),
        "trachea, carina",
    }
)

_REPORTS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", ".")
_IMAGES = ("NLMCXR_png", "images/images_normalized", "images", ".")
_PROJECTIONS = "indiana_projections.csv"
_VIEWS = {"frontal": "FRONTAL", "lateral": "LATERAL"}
_UNINDEXED = "no indexing"
# CXR1_1_IM-0001-3001 of the reports is CXR1_1_IM-0001-3001.png or, at Kaggle, 1_IM-0001-3001.dcm.png
_IMAGE = re.compile(r"(?:CXR)?(\d+)_(?:\d+_)?(IM-.+?)(?:\.dcm)?(?:\.png)?", re.IGNORECASE)


def datalist(
    root: str | Path, split: str | None = None, *, prompts: PromptSet, frontal_only: bool = False
) -> list[Item]:
    """List Open-i's images with captions from their reports and labels from MeSH headings.

    Every image of a report has the report's captions and labels. Reports without an image, and reports without
    findings and impression, are left out and counted in the log. Images of a report that are not there stay in the
    list, with a warning that counts them (:func:`cleft_bundle.data.make_splits` leaves them out); images
    without a report are left out and counted.

    The collection names no patient: each report counts as one. It defines no split.

    Args:
        root: the folder with ``ecgen-radiology/`` and the images, in ``NLMCXR_png/``, in ``images/`` or beside.
        split: None.
        prompts: caption templates (slots: ``findings``, the names of :func:`name_findings`; ``findings_text``,
            ``impression`` and ``indication``, sections of the report; ``view``) and classes, which are such names.
        frontal_only: leave lateral images out; needs Kaggle's ``indiana_projections.csv``.

    Returns:
        One item per image: ``image``, ``name`` (path within the set), ``caption``, ``captions`` where there are
        several, ``findings``, ``label`` (order of ``prompts.classes``; NaN where a report is not indexed),
        ``patient_id``, ``study_id``, ``split`` (None) and, where the table of projections has it, ``view``
        ("FRONTAL", "LATERAL").

    Raises:
        BundleError: an argument, a report or a table is not as described; names it.
    """
    if split is not None:
        raise BundleError(f"split='{split}': Open-i defines no split; expected None")
    prompts.check_classes(FINDINGS, "finding", "Open-i")
    prompts.check_slots(SLOTS)
    root = Path(root)
    reports = _read_reports(root)
    _no_shared_images(reports)
    views = _read_views(root)
    if frontal_only and not views:
        raise BundleError(f"{root}: frontal_only needs the table {_PROJECTIONS}, which is not there")
    without_images = sum(not report.images for report in reports.values())
    spoken = {
        name: report
        for name, report in reports.items()
        if report.images and {"findings", "impression"} & set(report.sections)
    }
    lateral = {image for image, view in views.items() if view == "LATERAL" and frontal_only}
    items = _items(root, spoken, views, lateral, prompts)
    images = [image for report in spoken.values() for image in report.images]
    hidden = sum(_key(image) in lateral for image in images)
    logger.info("Open-i: %d reports, %d items; left out: %d reports without an image, %d without findings and "
                "impression, %d lateral images, %d images that nothing captions",
                len(reports), len(items), without_images, len(reports) - len(spoken) - without_images,
                hidden, len(images) - hidden - len(items))  # fmt: skip
    return items


def name_findings(headings: Iterable[str]) -> list[str] | None:
    """Name what MeSH headings say of an image.

    A heading such as ``Opacity/lung/base/left`` counts by what stands before the first slash, in lower case. Inverted
    headings are reordered ("Hernia, Hiatal" is "hiatal hernia"), :data:`SYNONYMS` are replaced, and :data:`ANATOMY`
    is passed over. "normal" is "no finding", unless it stands beside a finding.

    Args:
        headings: the major headings of a report.

    Returns:
        The names, each once, in the report's order; None where the report says that it is not indexed, or has no
        heading at all.
    """
    plain = [plain_name(heading.split("/", 1)[0]) for heading in headings]
    if not plain or _UNINDEXED in plain:
        return None
    names: dict[str, None] = {}
    for heading in plain:
        if heading not in ANATOMY:
            turned = " ".join(reversed(heading.split(", ")))
            names.update(dict.fromkeys(SYNONYMS.get(heading, (turned,))))
    if len(names) > 1:
        names.pop(NO_FINDING, None)
    return list(names)


def _read_reports(root: Path) -> dict[str, Report]:
    """The reports by file name, in the order of their numbers."""
    paths = next((found for name in _REPORTS if (found := list((root / name).glob("*.xml")))), [])
    if not paths:
        raise BundleError(f"{root}: found no reports, expected {_REPORTS[0]}/*.xml")
    paths.sort(key=lambda path: (len(path.name), path.name))
    shown = bar(paths, "reading reports", "report", hidden=len(paths) < LONG, leave=False)
    return {path.name: read_openi(path) for path in shown}


def _no_shared_images(reports: dict[str, Report]) -> None:
    owners: dict[str, str] = {}
    for name, report in reports.items():
        for image in report.images:
            if owners.setdefault(image, name) != name or report.images.count(image) > 1:
                raise BundleError(f"image '{image}' is named twice, in {owners[image]} and in {name}")


def _read_views(root: Path) -> dict[str, str]:
    """From the key of each image to its view, where the table of projections is there."""
    path = root / _PROJECTIONS
    if not path.is_file():
        return {}
    frame = tables.read_table(path, ["filename", "projection"])
    for name in ("filename", "projection"):
        tables.no_gaps(frame[name], path)
    tables.no_duplicates(frame["filename"], path)
    views = tables.codes(frame["projection"], path, _VIEWS)
    return {_key(name): str(view) for name, view in zip(frame["filename"], views, strict=True)}


def _key(name: str) -> str:
    """What the id of an image, its file and Kaggle's file have in common."""
    found = _IMAGE.fullmatch(name)
    return f"{found[1]}_{found[2]}" if found else name


def _items(
    root: Path, reports: dict[str, Report], views: dict[str, str], lateral: set[str], prompts: PromptSet
) -> list[Item]:
    files = {_key(name): path for name, path in parts.image_files(root, _IMAGES).items() if name.endswith(".png")}
    wanted = {_key(image): f"{image}.png" for report in reports.values() for image in report.images}
    parts.report_images(
        logger, wanted.values(), {wanted.get(key, Path(path).name): path for key, path in files.items()}
    )
    folder, write = str(root.absolute()), parts.caption_writer(prompts)
    items = []
    for file, report in reports.items():
        names = name_findings(report.mesh)
        findings = {} if names is None else {name: float(name in names) for name in [*prompts.classes, *names]}
        words = {
            "findings": describe_findings(names or []),
            "findings_text": report.sections.get("findings"),
            "impression": report.sections.get("impression"),
            "indication": report.sections.get("indication"),
        }
        patient = pseudonym(report.uid or file)
        for image in report.images:
            key = _key(image)
            view = views.get(key)
            texts = write({**words, "view": (view or "").lower()})
            if key in lateral or not texts:
                continue
            name = files.get(key, f"{_IMAGES[0]}/{image}.png")
            items.append(
                make_item(
                    f"{folder}/{name}",
                    name,
                    texts,
                    findings=dict(findings),
                    label=parts.labels(findings, prompts),
                    patient_id=patient,
                    details=parts.known(view=view),
                )
            )
    return items
