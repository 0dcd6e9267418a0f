from collections import Counter

import pytest
from monai.transforms import Compose

from cleft_bundle import transforms
from cleft_bundle.data import EpochDataset
from cleft_bundle.errors import BundleError
from cleft_bundle.transforms import RandBreastFlipd, RandCaption, RandCaptiond, RandSentences, RandSentencesd

CAPTIONS = ["a", "b", "c"]
ITEM = {"name": "1.png", "caption": "a", "captions": CAPTIONS}
TEXT = "The heart is normal. No effusion. A nodule of 1.5 cm is seen. Stable."
SENTENCES = ["The heart is normal.", "No effusion.", "A nodule of 1.5 cm is seen.", "Stable."]


@pytest.mark.parametrize(("array", "value"), [(RandCaption, CAPTIONS), (RandSentences, TEXT)])
def test_each_pair_does_the_same_under_all_its_names(array, value):
    name = array.__name__
    dictionary = getattr(transforms, f"{name}d")
    assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
    item = {"caption": value if isinstance(value, str) else "a", "captions": CAPTIONS}
    for seed in range(20):
        expected = array().set_random_state(seed)(value)
        assert dictionary().set_random_state(seed)(item)["caption"] == expected


def test_all_captions_are_drawn_alike_and_nothing_else_changes():
    draw = RandCaptiond().set_random_state(0)
    drawn = [draw(ITEM) for _ in range(3000)]
    counts = Counter(item["caption"] for item in drawn)
    assert counts.keys() == set(CAPTIONS)
    assert all(900 < count < 1100 for count in counts.values())
    assert all({**item, "caption": "a"} == ITEM for item in drawn)
    assert ITEM["caption"] == "a"


def test_an_item_with_one_caption_passes():
    assert RandCaptiond()({"caption": "a"}) == {"caption": "a"}
    with pytest.raises(BundleError, match="captions"):
        RandCaptiond()({"caption": "a", "captions": []})


def test_the_seed_of_a_pipeline_decides():
    data = [ITEM] * 50
    pipeline = Compose([RandCaptiond(), RandSentencesd()])
    dataset = EpochDataset(_Mapped(data, pipeline), seed=3)
    first = [dataset[0, index]["caption"] for index in range(50)]
    assert first == [dataset[0, index]["caption"] for index in range(50)]
    assert first != [dataset[1, index]["caption"] for index in range(50)]
    assert set(first) == set(CAPTIONS)


class _Mapped:
    def __init__(self, data, transform):
        self.data, self.transform = data, transform

    def __getitem__(self, index):
        return self.transform(self.data[index])


def test_sentences_are_left_out_and_keep_their_order():
    sample = RandSentences(prob=1.0, keep=(0.0, 1.0)).set_random_state(0)
    seen = Counter(sample(TEXT) for _ in range(500))
    assert len(seen) == 15  # every choice of one to four sentences
    for text in seen:
        kept = [sentence for sentence in SENTENCES if sentence in text]
        assert text == " ".join(kept)
    assert {RandSentences(prob=1.0, keep=(0.5, 0.5)).set_random_state(seed)(TEXT).count(". ") for seed in range(9)} == {
        1
    }


def test_text_that_is_not_sampled_stays_as_it_is():
    assert RandSentences(prob=0.0)("One.  Two.") == "One.  Two."
    assert RandSentences(prob=1.0)("") == ""
    assert RandSentencesd(keys="gone", allow_missing_keys=True)(ITEM) == ITEM


@pytest.mark.parametrize(
    ("arguments", "name"), [({"prob": 2}, "prob"), ({"keep": (0.5, 1.5)}, "keep"), ({"keep": 1}, "keep")]
)
def test_an_argument_out_of_range_is_named(arguments, name):
    with pytest.raises(BundleError, match=name):
        RandSentences(**arguments)


def test_a_drawn_caption_is_mirrored_with_its_image(draw_mammogram):
    steps = Compose([RandCaptiond(), RandBreastFlipd(keys="image", prob=1.0)]).set_random_state(0)
    item = {"image": draw_mammogram().tensor, "caption": "x", "captions": ["the left breast"], "laterality": "L"}
    assert steps(item)["caption"] == "the right breast"
