import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleft_bundle.data.captions.prompts import PromptSet, describe_findings, load_prompts
from cleft_bundle.errors import BundleError

PROMPTS = Path(__file__).parents[3] / "configs" / "prompts"
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


def load(folder, **content):
    path = folder / "prompts.json"
    path.write_text(json.dumps({"caption": ["with {findings}"], **content}))
    return load_prompts(path)


def test_a_group_keeps_its_sentence_whole():
    group = {"start": "There is", "join": ", ", "last": " and ", "end": ".", "clauses": ["{a}", "{b}", "{c}"]}
    prompts = caption_set({"start": "Findings:", "clauses": [group]}, "Side: {side}")
    assert prompts.write({"a": "x", "b": "y", "c": "z"}) == ["Findings: There is x, y and z."]
    assert prompts.write({"a": "x", "c": "z."}) == ["Findings: There is x and z."]
    assert prompts.write({"b": "y", "side": "left"}) == ["Findings: There is y. Side: left"]
    assert prompts.write({"side": "left"}) == ["Side: left"]


def test_a_group_is_written_for_some_values_alone():
    prompts = caption_set("{side}", {"when": {"density": [3, "4"]}, "clauses": ["dense"]})
    assert prompts.write({"side": "left", "density": 3.0}) == ["left dense"]
    assert prompts.write({"density": "4"}) == ["dense"]
    assert prompts.write({"side": "left", "density": 2}) == ["left"]
    assert prompts.write({"density": 2}) == []
    with pytest.raises(BundleError, match="density"):
        prompts.check_slots(["side"])


def test_classes_by_name_take_their_prompts_from_the_templates(tmp_path):
    prompts = load(
        tmp_path,
        templates=["with {class}", "{class}, surely {class}"],
        negative_templates=["without {class}"],
        classes={
            "edema": {},
            "mass": {"positive": ["a lump"]},
            "nodule": ["a spot"],
            "no finding": {"negative": []},
            "fracture": {"negative": ["bones intact"]},
        },
    )
    assert prompts.classes == {
        "edema": ["with edema", "edema, surely edema"],
        "mass": ["a lump"],
        "nodule": ["a spot"],
        "no finding": ["with no finding", "no finding, surely no finding"],
        "fracture": ["with fracture", "fracture, surely fracture"],
    }
    assert prompts.negatives == {"edema": ["without edema"], "mass": ["without mass"], "fracture": ["bones intact"]}


def test_classes_may_be_a_list_of_names(tmp_path):
    prompts = load(tmp_path, templates=["with {class}"], classes=["edema", "mass"])
    assert prompts.classes == {"edema": ["with edema"], "mass": ["with mass"]}
    assert prompts.negatives == {}


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
        ({"classes": ["edema"]}, "'edema': has no prompt"),
        ({"classes": {"edema": "a chest"}}, "'edema'"),
        ({"classes": {"edema": []}}, "'edema'"),
        ({"classes": {"edema": ["a chest"], "fracture": ["a chest"]}}, "'edema' and 'fracture' share"),
        ({"classes": {"edema": ["a"], "Ede\uff4da ": ["b"]}}, "'classes': 'edema' and 'Ede\uff4da ' are one name"),
        ({"description": 3}, "'description'"),
        ({"caption": [{"clauses": ["{a}"], "stop": "."}]}, "clause 1: key 'stop' is unknown"),
        ({"caption": [{"start": "a"}]}, "clause 1, key 'clauses': expected a list of clauses"),
        ({"caption": [{"clauses": ["{a}"], "end": "{b}"}]}, "key 'end': expected text without slots"),
        ({"caption": [{"clauses": ["a"], "when": {"density": 3}}]}, "key 'when': expected an object"),
        ({"caption": ["{a}", 3]}, "clause 2: expected text, or an object"),
        ({"classes": {"edema": {}}}, "'edema': has no prompt, and there is no key 'templates'"),
        ({"classes": {"edema": {"positiv": ["a"]}}}, "did you mean 'positive'?"),
        ({"classes": {"edema": {"positive": [], "negative": ["a"]}}}, "'edema': expected a list of positive prompts"),
        ({"classes": {"edema": {"positive": ["a"], "negative": "b"}}}, "'edema': expected a list of negative prompts"),
        ({"classes": {"edema": {"positive": ["a"], "negative": ["a"]}}}, "'edema': the prompt 'a' is both"),
        ({"classes": {"edema": {"positive": ["a"], "negative": [" "]}}}, "'edema': expected a class and one or more"),
        ({"classes": {"edema": 3}}, "'edema': expected a list of prompts, or an object"),
        ({"classes": ["edema", "edema"]}, "'classes': 'edema' is repeated"),
        ({"classes": "edema"}, "'classes': expected a list of names, or an object"),
        ({"templates": ["with {class}"]}, "'templates': no class leaves its prompts to them"),
        ({"templates": "with {class}", "classes": ["edema"]}, "'templates': expected a list of prompts"),
        ({"templates": ["with {name}"], "classes": ["edema"]}, "'templates': 'with {name}': expected the slot {class}"),
        ({"templates": ["with edema"], "classes": ["edema"]}, "'templates': 'with edema': expected the slot {class}"),
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
