import hashlib

import pytest
import torch

from cleft_bundle.data import CaptionCollate, CaptionTokenizer
from cleft_bundle.data.collate import caption_id
from cleft_bundle.errors import BundleError


def item(name, caption):
    return {"name": name, "caption": caption, "image": torch.zeros(1, 2, 2), "label": [1.0, float("nan")]}


def test_each_distinct_caption_is_tokenised_once_and_found_again(tokenize):
    captions = ["edema", "no finding", "edema", "pleural effusion"]
    batch = CaptionCollate(tokenize)([item(str(i), caption) for i, caption in enumerate(captions)])
    assert batch["input_ids"].shape[0] == 3
    for row, caption in enumerate(captions):
        index = batch["caption_index"][row]
        ids = batch["input_ids"][index][batch["attention_mask"][index].bool()]
        assert tokenize.tokenizer.decode(ids) == caption
    assert batch["caption_id"][0] == batch["caption_id"][2]
    assert len(set(batch["caption_id"].tolist())) == 3
    assert batch["name"] == ["0", "1", "2", "3"]
    assert batch["label"][0, 0] == 1.0
    assert batch["label"].isnan()[:, 1].all()


def test_a_batch_names_its_patients_where_all_items_do(tokenize):
    items = [item(str(number), "edema") | {"patient_id": f"p{number // 2}"} for number in range(3)]
    assert CaptionCollate(tokenize)(items)["patient_id"] == ["p0", "p0", "p1"]
    assert "patient_id" not in CaptionCollate(tokenize)([*items, item("3", "edema")])


def test_captions_are_padded_to_the_longest_of_the_batch_with_one_eos(tokenize):
    batch = tokenize(["edema", "edema, pneumothorax, cardiomegaly"])
    lengths = batch["attention_mask"].sum(dim=1)
    assert batch["input_ids"].shape[1] == lengths.max() + 1
    for row, length in enumerate(lengths):
        assert (batch["input_ids"][row, length:] == tokenize.tokenizer.eos_token_id).all()
        assert (batch["attention_mask"][row, :length] == 1).all()


def test_a_caption_longer_than_the_window_is_cut_with_room_for_eos(tokenize):
    batch = tokenize(["edema " * 200])
    assert batch["input_ids"].shape == (1, tokenize.max_length)
    assert batch["attention_mask"].sum() == tokenize.max_length - 1


def test_the_caption_id_is_stable_and_fits_int64():
    digest = hashlib.blake2b(b"\x05" + bytes(7) + b"\x01\x02" + bytes(6), digest_size=8).digest()
    assert caption_id((5, 513)) == int.from_bytes(digest, "big") // 2
    assert 0 <= caption_id((700, 3)) < 2**63
    assert caption_id((5, 513)) != caption_id((513, 5))


def test_captions_are_equal_where_their_tokens_are(tokenize):
    long = "edema " * 40
    captions = ["mass", long + "with mass", "fracture", long + "without mass", "mass"]
    batch = CaptionCollate(tokenize)([item(str(i), caption) for i, caption in enumerate(captions)])
    assert batch["caption_index"].tolist() == [0, 1, 2, 1, 0]
    assert batch["input_ids"].shape == (3, tokenize.max_length)
    assert batch["caption_id"][1] == batch["caption_id"][3]
    assert len(set(batch["caption_id"].tolist())) == 3
    alone = CaptionCollate(tokenize)([item("0", long + "and more")])
    assert alone["caption_id"][0] == batch["caption_id"][1], "padding is no part of a caption"
    short = CaptionCollate(tokenize)([item("0", "fracture")])
    assert short["caption_id"][0] == batch["caption_id"][2]


def test_a_window_without_room_is_refused(tokenize):
    with pytest.raises(BundleError, match="max_length"):
        CaptionTokenizer(tokenize.tokenizer, max_length=1)


def test_words_after_a_context_have_the_tokens_that_they_have_in_a_sentence(tokenize):
    tokenizer, before, words = tokenize.tokenizer, "x ray of a patient with", ["edema", "pleural effusion"]
    whole, start = CaptionTokenizer(tokenizer), len(tokenizer(before)["input_ids"])
    after = CaptionTokenizer(tokenizer, after=before)(words)
    expected = whole([f"{before} {word}" for word in words])
    assert torch.equal(after["input_ids"], expected["input_ids"][:, start:])
    assert torch.equal(after["attention_mask"], expected["attention_mask"][:, start:])
    assert not torch.equal(after["input_ids"], whole(words)["input_ids"])
    assert CaptionTokenizer(tokenizer, max_length=3, after=before)(words)["input_ids"].shape == (2, 3)
