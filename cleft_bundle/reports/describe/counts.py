"""The numbers behind the pictures of a data report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cleft_bundle.data.collate import CaptionTokenizer
from cleft_bundle.data.dicom.header import describe, read_header
from cleft_bundle.data.epochs import EpochSampler
from cleft_bundle.data.item import Item
from cleft_bundle.data.token_checks import captions_of, token_rows
from cleft_bundle.errors import RadiographError
from cleft_bundle.reports.turns import in_turn
from cleft_bundle.vocabulary import SEX_WORDS, SIDE_WORDS

#: What of an item a report counts, beside its labels.
DETAILS = ("view", "laterality", "sex", "age", "manufacturer")
#: What it counts besides, where any item has it: where the view comes from, what sets images apart, and how they lie.
NOTES = ("view_source", "traits", "orientation")
UNKNOWN = "not known"
_WORDS = {"sex": SEX_WORDS, "laterality": {**SIDE_WORDS, "B": "both"}}
_HEADERS = 300  # files asked for their maker, where the table does not name it
_BATCHES = 300  # batches whose captions are counted


def tabulate(splits: Mapping[str, Sequence[Item]]) -> pd.DataFrame:
    """One row per image: split, patient_id, study_id, and :data:`DETAILS` and :data:`NOTES`, NaN where it has none."""
    rows = [
        {"split": split, **{key: item.get(key) for key in ("patient_id", "study_id", *DETAILS, *NOTES)}}
        for split, items in splits.items()
        for item in items
    ]
    frame = pd.DataFrame(rows, columns=["split", "patient_id", "study_id", *DETAILS, *NOTES])
    frame["age"] = pd.to_numeric(frame["age"])
    for name, words in _WORDS.items():
        frame[name] = frame[name].map(lambda value, words=words: words.get(value, value))
    return frame


def makers(items: Sequence[Item], seed: int) -> list[str]:
    """Manufacturers in the headers of a few of the DICOM files; "" where a header names none."""
    files = [item["image"] for item in items if not str(item["image"]).lower().endswith((".png", ".jpg", ".jpeg"))]
    places = np.random.default_rng(seed).permutation(len(files))[:_HEADERS]
    return [_maker(files[place]) for place in places]


def _maker(path: str) -> str:
    try:
        return str(describe(read_header(path, pixels=False))["manufacturer"])
    except (RadiographError, OSError, ValueError):  # no DICOM file, or one that training will complain about
        return ""


def label_counts(splits: Mapping[str, Sequence[Item]], classes: Sequence[str]) -> dict[str, pd.DataFrame]:
    """By split, for each class: images that are positive, negative and of unknown label."""
    counts = {}
    for split, items in splits.items():
        labels = _labels(items, classes)
        values = [(labels == 1).sum(axis=0), (labels == 0).sum(axis=0), np.isnan(labels).sum(axis=0)]
        counts[split] = pd.DataFrame(dict(zip(("positive", "negative", "unknown"), values, strict=True)), list(classes))
    return counts


def cooccurrence(items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
    """Images that are positive for both of two classes, int [K, K]; the diagonal counts the positives of each."""
    positive = (_labels(items, classes) == 1).astype(int)
    return positive.T @ positive


def _labels(items: Sequence[Item], classes: Sequence[str]) -> np.ndarray:
    return np.array([item["label"] for item in items], dtype=float).reshape(len(items), len(classes))


def caption_tokens(items: Iterable[Item], tokenize: CaptionTokenizer) -> tuple[pd.Series, pd.Series]:
    """Frequency of each caption, and its tokens before any cut (EOS not counted), both indexed by the caption."""
    frequency = pd.Series([text for item in items for text in captions_of(item)], dtype=object).value_counts()
    texts = list(frequency.index)
    lengths = [len(row) for row in tokenize.tokenizer(texts)["input_ids"]] if texts else []
    return frequency, pd.Series(lengths, index=frequency.index, dtype=int)


def distinct_captions(items: Sequence[Item], batch_size: int, seed: int, tokenize: CaptionTokenizer) -> np.ndarray:
    """Distinct captions, by tokens, in each of the first batches of a training with this seed: int [batches]."""
    different = list(dict.fromkeys(text for item in items for text in captions_of(item)))
    tokens = dict(zip(different, token_rows(tokenize(different)), strict=True)) if different else {}
    texts = [[tokens[text] for text in captions_of(item)] for item in items]
    drawn = np.random.default_rng(seed)
    sampler = EpochSampler(len(items), seed)
    size = min(batch_size, len(items))
    counts: list[int] = []
    while items and len(counts) < _BATCHES:
        order = [index for _, index in sampler]
        for start in range(0, len(order) - size + 1, size):
            chosen = [texts[index] for index in order[start : start + size]]
            counts.append(len({several[drawn.integers(len(several))] for several in chosen}))
    return np.array(counts[:_BATCHES], dtype=int)


def choose_samples(items: Sequence[Item], classes: Sequence[str], count: int, seed: int) -> list[Item]:
    """Items to look at: drawn so that the classes take turns, and each patient comes once as long as that works."""
    order = [items[place] for place in np.random.default_rng(seed).permutation(len(items))]
    columns = [[item for item in order if item["label"][number] == 1] for number in range(len(classes))]
    patients: set[str] = set()
    chosen: list[Item] = []
    for item, _ in in_turn([*columns, order], lambda item: item["patient_id"] not in patients):
        if len(chosen) == count:
            break
        patients.add(item["patient_id"])
        chosen.append(item)
    taken = {id(item) for item in chosen}
    rest = [item for item in order if id(item) not in taken]
    return chosen + rest[: count - len(chosen)]
