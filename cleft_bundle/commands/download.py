"""``cleft download``: a public set into a folder, or where it is and how its folder shall look."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cleft_bundle.errors import BundleError, UsageError, nearest, one_line
from cleft_bundle.extras import require


@dataclass(frozen=True)
class Source:
    """A public set.

    Attributes:
        page: where its terms stand and are accepted.
        tree: what its folder holds, a line each.
        idc: its collection in the Imaging Data Commons, which asks for no account.
        kaggle: its competition at Kaggle, which asks for a token, and for the rules to be accepted on its page.
    """

    page: str
    tree: tuple[str, ...]
    idc: str = ""
    kaggle: str = ""


_CBIS_TABLES = ("mass_case_description_{train,test}_set.csv", "calc_case_description_{train,test}_set.csv")
#: The sets by the names of their overlays.
SOURCES: Mapping[str, Source] = {
    "cbis": Source(
        "https://www.cancerimagingarchive.net/collection/cbis-ddsm",
        (*_CBIS_TABLES, "Mass-Training_P_00001_LEFT_CC/<study>/<series>/1-1.dcm ..."),
        idc="cbis_ddsm",
    ),
    "chexpert": Source(
        "https://stanfordmlgroup.github.io/competitions/chexpert",
        ("train.csv, valid.csv", "train/patient00001/study1/view1_frontal.jpg ...", "valid/..."),
    ),
    "cmmd": Source(
        "https://doi.org/10.7937/tcia.eqde-4b16",
        ("CMMD_clinicaldata_revision.xlsx", "D1-0001/<study>/<series>/1-1.dcm ..."),
        idc="cmmd",
    ),
    "covid": Source("https://github.com/ieee8023/covid-chestxray-dataset", ("metadata.csv", "images/...")),
    "embed": Source(
        "https://github.com/Emory-HITI/EMBED_Open_Data",
        ("tables/EMBED_OpenData_metadata.csv", "tables/EMBED_OpenData_clinical.csv", "images/..."),
    ),
    "mias": Source("http://peipa.essex.ac.uk/info/mias.html", ("Info.txt", "mdb001.pgm ...")),
    "mimic_cxr": Source(
        "https://physionet.org/content/mimic-cxr-jpg",
        (
            "mimic-cxr-2.0.0-{metadata,split,chexpert,negbio}.csv.gz",
            "files/p10/p10000032/s50414267/<dicom_id>.jpg ...",
            "files/p10/p10000032/s50414267.txt ...",
        ),
    ),
    "nih": Source(
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
        ("Data_Entry_2017_v2020.csv", "train_val_list.txt, test_list.txt", "BBox_List_2017.csv", "images/..."),
    ),
    "openi": Source(
        "https://openi.nlm.nih.gov", ("ecgen-radiology/1.xml ...", "NLMCXR_png/CXR1_1_IM-0001-3001.png ...")
    ),
    "padchest": Source(
        "https://bimcv.cipf.es/bimcv-projects/padchest",
        ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "0/<ImageID> ... 54/<ImageID>"),
    ),
    "rsna": Source(
        "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
        ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "stage_2_train_images/<patientId>.dcm ..."),
        kaggle="rsna-pneumonia-detection-challenge",
    ),
    "rsna_breast": Source(
        "https://www.kaggle.com/competitions/rsna-breast-cancer-detection",
        ("train.csv", "train_images/<patient_id>/<image_id>.dcm ..."),
        kaggle="rsna-breast-cancer-detection",
    ),
    "siim": Source(
        "https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
        ("train-rle.csv", "dicom-images-train/.../<ImageId>.dcm ..."),
    ),
    "vindr_cxr": Source(
        "https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection",
        ("train.csv", "train/<image_id>.dicom ..."),
        kaggle="vinbigdata-chest-xray-abnormalities-detection",
    ),
    "vindr_mammo": Source(
        "https://physionet.org/content/vindr-mammo",
        ("breast-level_annotations.csv", "finding_annotations.csv", "images/<study_id>/<image_id>.dicom ..."),
    ),
}

_TEMPLATE = "%PatientID/%StudyInstanceUID/%SeriesInstanceUID"
_TOKENS = (".kaggle/kaggle.json", ".kaggle/access_token")


def download(name: str, folder: str = "data") -> str:
    """Fetch a public set that is free to fetch, or say where it is and how its folder shall look.

    CBIS-DDSM and CMMD come from the Imaging Data Commons, without an account; their tables are on the page of the set.
    A Kaggle challenge comes by your own token, once you have accepted its rules on its page. Of the other sets, the
    page and the expected tree are printed: they ask for an account or an agreement that only you can make.

    Args:
        name: of the set, as in ``configs/data_NAME.json``.
        folder: that receives the set; a folder of the set's name is made in it.

    Returns:
        what is there now, what is still to be fetched, and what to run next.

    Raises:
        UsageError: there is no such set.
        BundleError: the set cannot be fetched, or a package is missing that fetches it.
    """
    if name not in SOURCES:
        raise UsageError(f"download: there is no set {name!r}{nearest(name, SOURCES)}; sets: {', '.join(SOURCES)}")
    source, root = SOURCES[name], Path(folder) / name
    done = f"{name} is not free to fetch without an account: accept its terms on its page, and download it there"
    if source.idc:
        _from_idc(source.idc, root)
        done = f"the images of {name} are in {root}; its tables are on its page"
    elif source.kaggle and _has_token():
        _from_kaggle(source.kaggle, root)
        done = f"{name} is in {root}"
    elif source.kaggle:
        done = f"{name} comes with a token of Kaggle (KAGGLE_API_TOKEN, or ~/.kaggle/kaggle.json), or by hand"
    return "\n".join(
        [
            done + ".",
            f"page: {source.page}",
            f"expected: {root}/",
            *(f"  {line}" for line in source.tree),
            f"then: --config_file \"['configs/train.json','configs/data_{name}.json']\" --dataset_dir {root}",
        ]
    )


def _from_idc(collection: str, root: Path) -> None:
    client = require("idc_index", "download").IDCClient()
    _fetch(collection, root, lambda: client.download_from_selection(
        downloadDir=str(root), collection_id=collection, dirTemplate=_TEMPLATE))  # fmt: skip


def _from_kaggle(competition: str, root: Path) -> None:
    hub = require("kagglehub", "download")
    _fetch(competition, root, lambda: hub.competition_download(competition, output_dir=str(root)))


def _fetch(what: str, root: Path, call: Callable[[], object]) -> None:
    """Call what fetches a set; its errors, of many kinds, become one line."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        call()
    except Exception as error:
        raise BundleError(
            f"download: {what} could not be fetched: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not any(path.is_file() for path in root.rglob("*")):
        raise BundleError(f"download: {what} was fetched, and {root} holds no file")


def _has_token() -> bool:
    """True where Kaggle's own client would find a token; it is not read here."""
    given = os.environ.get("KAGGLE_API_TOKEN") or (os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"))
    return bool(given) or any((Path.home() / name).is_file() for name in _TOKENS)
