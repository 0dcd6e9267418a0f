"""Images, label tables, captions, splits and batches."""

from cleft_bundle.data import phantoms
from cleft_bundle.data.cache import RadiographCache
from cleft_bundle.data.captions.prompts import PromptSet, load_prompts, names_as_prompts
from cleft_bundle.data.collate import CaptionCollate, CaptionTokenizer
from cleft_bundle.data.datalists import fingerprint, read_datalist, write_datalist
from cleft_bundle.data.datasets import (
    cbis_ddsm,
    chexpert,
    cmmd,
    covid,
    dicom_dir,
    embed,
    folder,
    mias,
    mimic_cxr,
    nih,
    openi,
    padchest,
    rsna,
    rsna_breast,
    siim,
    vindr_cxr,
    vindr_mammo,
)
from cleft_bundle.data.epochs import EpochDataset, EpochSampler
from cleft_bundle.data.image_lists import list_images
from cleft_bundle.data.item_checks import check_items, is_multi_label, present_items, task_of
from cleft_bundle.data.loaders import calibration_loader, training_loader, validation_loader
from cleft_bundle.data.pictures import known_pictures, read_pictures, shared_pictures
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.data.radiograph_writer import RadiographWriter
from cleft_bundle.data.splits import calibration_items, make_splits, reported_split, select_split
from cleft_bundle.data.store.choice import cached_dataset
from cleft_bundle.data.store.dataset import RadiographStore
from cleft_bundle.data.subsets import balanced_set, patient_fraction
from cleft_bundle.data.tolerant_dataset import (
    TolerantDataset,
    begin_reading,
    collate_readable,
    reading_workers,
)
from cleft_bundle.data.usable_labels import label_summary, usable_items

__all__ = [
    "CaptionCollate",
    "CaptionTokenizer",
    "EpochDataset",
    "EpochSampler",
    "PromptSet",
    "RadiographCache",
    "RadiographReader",
    "RadiographStore",
    "RadiographWriter",
    "TolerantDataset",
    "balanced_set",
    "begin_reading",
    "cached_dataset",
    "calibration_items",
    "calibration_loader",
    "cbis_ddsm",
    "check_items",
    "chexpert",
    "cmmd",
    "collate_readable",
    "covid",
    "dicom_dir",
    "embed",
    "fingerprint",
    "folder",
    "is_multi_label",
    "known_pictures",
    "label_summary",
    "list_images",
    "load_prompts",
    "make_splits",
    "mias",
    "mimic_cxr",
    "names_as_prompts",
    "nih",
    "openi",
    "padchest",
    "patient_fraction",
    "phantoms",
    "present_items",
    "pseudonym",
    "read_datalist",
    "read_pictures",
    "reading_workers",
    "reported_split",
    "rsna",
    "rsna_breast",
    "select_split",
    "shared_pictures",
    "siim",
    "task_of",
    "training_loader",
    "usable_items",
    "validation_loader",
    "vindr_cxr",
    "vindr_mammo",
    "write_datalist",
]
