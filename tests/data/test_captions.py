import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.data import chexpert, embed
from cleft_bundle.data.captions import PromptSet, describe_findings, load_prompts
from cleft_bundle.errors import BundleError

PROMPTS = Path(__file__).parents[2] / "configs" / "prompts"
EMBED = load_prompts(PROMPTS / "embed_density.json")
NAMES = ["side", "view", "density", "density_words", "birads", "birads_words"]


def caption_set(*caption):
    return PromptSet(caption, {"edema": ["edema"]})


def test_complete_row():
    values = {
        "side": "left",
        "view": "cc",
        "density": 2.0,
        "density_words": "scattered fibroglandular densities",
        "birads": 0,
        "birads_words": "additional imaging",
    }
    assert EMBED.write(values) == [
        "this is a breast 2d full field digital mammogram of a patient on the left side in the cc view "
        "with breast tissue density 2: scattered fibroglandular densities with birads score 0: additional imaging"
    ]


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan")])
def test_a_missing_value_drops_its_clause(missing):
    values = {"side": "left", "view": missing, "density": 2, "density_words": missing}
    expected = "this is a breast 2d full field digital mammogram of a patient on the left side"
    assert EMBED.write(values) == [expected]


def test_fixed_text_alone_is_no_caption():
    assert EMBED.write({}) == []
    assert EMBED.write({"findings": "edema"}) == []


def test_values_with_braces_are_text():
    assert caption_set("seen: {findings}").write({"findings": "{odd}"}) == ["seen: {odd}"]


def test_several_templates_give_distinct_captions_in_their_order():
    prompts = caption_set(["{findings}", "in the {view} view"], ["a chest", "with {findings}"], ["{findings}"])
    assert prompts.write({"findings": "edema", "view": "pa"}) == [
        "edema in the pa view",
        "a chest with edema",
        "edema",
    ]
    assert prompts.write({"findings": "edema"}) == ["edema", "a chest with edema"]
    assert prompts.write({"view": "pa"}) == ["in the pa view"]
    with pytest.raises(BundleError, match=r"key 'caption', template 1: nothing fills the slot \{view\}"):
        prompts.check_slots(["findings"])


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=5))))
def test_captions_have_no_double_space_and_no_empty_slot(values):
    for caption in EMBED.write(values):
        assert caption == " ".join(caption.split())
        assert "nan" not in caption
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
    assert [chest.write({"findings": name}) for name in chest.classes] == [*chest.classes.values()]
    for target, table in embed.TARGETS.items():
        prompts = load_prompts(PROMPTS / f"embed_{target}.json")
        codes = {words: code for code, words in table.items()}
        for name, texts in prompts.classes.items():
            assert texts == prompts.write({target: codes[name], f"{target}_words": name})


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
        ({"caption": [["{findings}"], ["a chest"]]}, "'caption', template 2 has no clause with a slot"),
        ({"caption": [["{findings}"], "a chest"]}, "'caption', template 2: expected a list of clauses"),
        ({"caption": [["{findings}"], ["x", "{y"]]}, "'caption', template 2, clause 2: '{y'"),
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
