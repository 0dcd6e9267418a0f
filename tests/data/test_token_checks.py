import pytest

from cleft_bundle.data import CaptionCollate, CaptionTokenizer
from cleft_bundle.data.token_checks import check_class_tokens, token_rows, warn_of_cut_captions
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DualEncoder, DualEncoderTokenizer
from tests.conftest import ROOT, tiny_dual_encoder

LONG = "edema " * 40


@pytest.fixture(params=["caption", "clip", "siglip"])
def any_tokenizer(request, tokenize):
    if request.param == "caption":
        return tokenize
    return DualEncoderTokenizer(str(ROOT / "configs/tokenizer_tiny"), DualEncoder(tiny_dual_encoder(request.param)))


def test_a_text_is_cut_where_its_tokens_are_more_than_the_window_keeps(any_tokenizer):
    texts = [" ".join(["edema"] * count) for count in range(1, 40)]
    kept = [len(row) for row in token_rows(any_tokenizer(texts))]
    whole = [len(any_tokenizer.tokenizer(text)["input_ids"]) for text in texts]
    assert any_tokenizer.is_cut(texts) == [short < full for short, full in zip(kept, whole, strict=True)]
    assert 0 < sum(any_tokenizer.is_cut(texts)) < len(texts)


def test_words_before_the_captions_are_no_part_of_the_window(tokenize):
    after = CaptionTokenizer(tokenize.tokenizer, max_length=3, after="x ray of a patient with")
    assert after.is_cut(["no finding", "pleural effusion and edema"]) == [False, True]


def test_cut_captions_of_a_split_are_counted_in_one_line(tokenize, caplog):
    items = [
        {"caption": LONG},
        {"caption": LONG},
        {"caption": "edema", "captions": ["edema", LONG + "mass"]},
        {"caption": "mass"},
    ]
    CaptionCollate(tokenize, items)
    expected = (
        "captions: 2 of 4 different ones are longer than max_caption_tokens 32 and are cut: their ends are not read"
    )
    assert caplog.messages == [expected]
    caplog.clear()
    warn_of_cut_captions([*items[3:], {"caption": None}], tokenize)
    CaptionCollate(tokenize)
    assert not caplog.messages


def test_classes_with_equal_tokens_are_refused_by_name(any_tokenizer):
    with pytest.raises(
        BundleError, match=r"'a' and 'b' have equal tokens once cut to (max_caption_tokens|the model's)"
    ):
        check_class_tokens({"a": [LONG + "a"], "c": ["c"], "b": ["b", LONG + "b"]}, any_tokenizer)


def test_equal_tokens_of_short_texts_are_refused_too(tokenize):
    def folding(texts):
        return tokenize([text.lower() for text in texts])

    with pytest.raises(BundleError, match="'a' and 'b' have equal tokens under this tokenizer"):
        check_class_tokens({"a": ["Edema"], "b": ["edema"]}, folding)
    check_class_tokens({"a": ["Edema"], "b": ["edema"]}, tokenize)


def test_prompts_that_are_cut_or_doubled_are_told_by_class(tokenize, caplog):
    prompts = {"a": ["mass " + LONG, "mass " + LONG + "b"], "b": ["b"], "c": ["c"]}
    check_class_tokens(prompts, tokenize, {"b": ["no b"], "c": ["no c " + LONG]})
    assert caplog.messages == [
        "class prompts: those of a, c are longer than max_caption_tokens 32 and are cut: their ends are not read",
        "class prompts: some of a have equal tokens and count several times",
    ]
    caplog.clear()
    check_class_tokens({"b": ["b"], "c": ["c"]}, tokenize, {"b": ["normal"], "c": ["normal"]})
    assert not caplog.messages, "two classes may have one negative"
