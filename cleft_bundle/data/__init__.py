"""Images, label tables, captions, splits and batches."""

from cleft_bundle.data import chexpert, embed, folder, phantoms
from cleft_bundle.data.cache import RadiographCache, cached_dataset
from cleft_bundle.data.captions import PromptSet, load_prompts, names_as_prompts
from cleft_bundle.data.collate import CaptionCollate, CaptionTokenizer
from cleft_bundle.data.epochs import EpochDataset, EpochSampler
from cleft_bundle.data.inference_dataset import TolerantDataset, collate_readable, list_images
from cleft_bundle.data.pseudonyms import pseudonym
from cleft_bundle.data.radiograph_reader import RadiographReader
from cleft_bundle.data.splits import check_items, fingerprint, is_multi_label, make_splits, select_split

__all__ = [
    "CaptionCollate",
    "CaptionTokenizer",
    "EpochDataset",
    "EpochSampler",
    "PromptSet",
    "RadiographCache",
    "RadiographReader",
    "TolerantDataset",
    "cached_dataset",
    "check_items",
    "chexpert",
    "collate_readable",
    "embed",
    "fingerprint",
    "folder",
    "is_multi_label",
    "list_images",
    "load_prompts",
    "make_splits",
    "names_as_prompts",
    "phantoms",
    "pseudonym",
    "select_split",
]
