import json
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.data import chexpert, embed
from cleft_bundle.data.captions import PromptSet, describe_findings, fill, load_prompts
from cleft_bundle.errors import BundleError

PROMPTS = Path(__file__).parents[2] / "configs" / "prompts"
EMBED_CAPTION = load_prompts(PROMPTS / "embed_density.json").caption
NAMES = ["side", "view", "density", "density_words", "birads", "birads_words"]


def test_complete_row():
    values = {
        "side": "left",
        "view": "cc",
        "density": 2.0,
        "density_words": "scattered fibroglandular densities",
        "birads": 0,
        "birads_words": "additional imaging",
    }
    assert fill(EMBED_CAPTION, values) == (
        "this is a breast 2d full field digital mammogram of a patient on the left side in the cc view "
        "with breast tissue density 2: scattered fibroglandular densities with birads score 0: additional imaging"
    )


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_a_missing_value_drops_its_clause(missing):
    values = {"side": "left", "view": missing, "density": 2, "density_words": missing}
    expected = "this is a breast 2d full field digital mammogram of a patient on the left side"
    assert fill(EMBED_CAPTION, values) == expected


def test_fixed_text_alone_is_no_caption():
    assert fill(EMBED_CAPTION, {}) is None
    assert fill(["a chest"], {"findings": "edema"}) is None


def test_values_with_braces_are_text():
    assert fill(["seen: {findings}"], {"findings": "{odd}"}) == "seen: {odd}"


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=5))))
def test_captions_have_no_double_space_and_no_empty_slot(values):
    caption = fill(EMBED_CAPTION, values)
    if caption is not None:
        assert caption == " ".join(caption.split())
        assert "nan" not in caption.replace(EMBED_CAPTION[0], "")
        assert "None" not in caption


def test_findings_are_joined_by_commas():
    assert describe_findings(["edema", "pleural effusion"]) == "edema, pleural effusion"
    assert describe_findings([]) == ""


@pytest.mark.parametrize(
    ("name", "slots", "classes"),
    [
        ("chexpert", chexpert.SLOTS, [finding.lower() for finding in chexpert.FINDINGS]),
        ("embed_density", embed.SLOTS, list(embed.DENSITY_WORDS.values())[:4]),
        ("embed_birads", embed.SLOTS, list(embed.BIRADS_WORDS.values())),
    ],
)
def test_shipped_prompt_files_fit_their_datasets(name, slots, classes):
    prompts = load_prompts(PROMPTS / f"{name}.json")
    prompts.check_slots(slots)
    assert set(prompts.classes) <= set(classes)
    assert list(prompts.classes) == classes or name == "chexpert"
    assert all(finding in prompt for finding, texts in prompts.classes.items() for prompt in texts)


def test_shipped_class_prompts_are_captions_of_that_finding():
    chest = load_prompts(PROMPTS / "chexpert.json")
    assert [fill(chest.caption, {"findings": name}) for name in chest.classes] == [*chain(*chest.classes.values())]
    for target, table in embed.TARGETS.items():
        prompts = load_prompts(PROMPTS / f"embed_{target}.json")
        codes = {words: code for code, words in table.items()}
        for name, texts in prompts.classes.items():
            assert texts == [fill(prompts.caption, {target: codes[name], f"{target}_words": name})]


GOOD = {"caption": ["a chest with {findings}"], "classes": {"edema": ["a chest with edema"]}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"caption": "a chest with {findings}"}, "'caption'"),
        ({"caption": ["a chest"]}, "'caption'"),
        ({"caption": ["a chest with {findings"]}, "{findings"),
        ({"caption": ["a chest with {}"]}, "plain name"),
        ({"caption": ["a chest with {findings:>9}"]}, "plain name"),
        ({"caption": None}, "'caption'"),
        ({"classes": {}}, "'classes'"),
        ({"classes": ["edema"]}, "'classes'"),
        ({"classes": {"edema": "a chest"}}, "'edema'"),
        ({"classes": {"edema": []}}, "'edema'"),
        ({"classes": {"edema": ["a chest"], "fracture": ["a chest"]}}, "'edema' and 'fracture' share"),
        ({"description": 3}, "'description'"),
        ({"captions": []}, "did you mean 'caption'?"),
    ],
)
def test_a_wrong_prompt_file_names_file_and_key(tmp_path, change, words):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(BundleError) as caught:
        load_prompts(path)
    assert "prompts.json" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{\n'caption'", "line 2"),
        ("[]", "object"),
        ('{"classes": {"edema": ["a"], "edema": ["b"]}}', "'edema' is repeated"),
    ],
)
def test_a_file_that_is_no_prompt_object_is_refused(tmp_path, text, words):
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=words):
        load_prompts(path)


def test_a_missing_prompt_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"none\.json"):
        load_prompts(tmp_path / "none.json")


def test_a_slot_that_nothing_fills_names_the_nearest():
    prompts = PromptSet(("with {findngs}",), {"edema": ["edema"]})
    with pytest.raises(BundleError, match=r"findngs.*did you mean 'findings'\?"):
        prompts.check_slots(["findings", "view"])
