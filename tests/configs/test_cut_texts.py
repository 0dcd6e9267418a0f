"""Texts that are cut, as the configs meet them."""

import pytest
from monai.bundle import ConfigParser

from cleft_bundle.errors import BundleError
from tests.conftest import ROOT


def parsed(chest_phantoms, *files, **values):
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("train.json", *files)])
    parser.update({"dataset_dir": chest_phantoms, **values})
    return parser


def cut_lines(caplog):
    return [message for message in caplog.messages if message.startswith("captions: ")]


@pytest.mark.parametrize(
    ("files", "values", "lines"),
    [
        ((), {"max_caption_tokens": 64}, 0),
        ((), {"max_caption_tokens": 12}, 1),
        (("prompt_tuning.json",), {"max_caption_tokens": 4, "objective": "contrastive"}, 1),
        (("prompt_tuning.json",), {"max_caption_tokens": 4}, 0),  # captions play no part
        (("finetune.json",), {"max_caption_tokens": 4}, 0),
    ],
)
def test_cut_captions_of_the_training_are_told_where_it_reads_them(files, values, lines, chest_phantoms, caplog):
    parsed(chest_phantoms, *files, **values).get_parsed_content("train#dataloader")
    assert len(cut_lines(caplog)) == lines
    if lines:
        assert f"are longer than max_caption_tokens {values['max_caption_tokens']} and are cut" in cut_lines(caplog)[0]


def test_an_evaluation_tells_what_it_cuts_for_retrieval(chest_phantoms, caplog):
    words = {"edema": ["edema"], "no finding": ["no finding"]}
    options = {"max_caption_tokens": 12, "validate#inferer#prompts": words}
    parsed(chest_phantoms, "evaluate.json", **options).get_parsed_content("validate#dataloader")
    assert len(cut_lines(caplog)) == 1


@pytest.mark.parametrize("files", [(), ("evaluate.json",), ("build_classifier.json",)])
def test_class_prompts_that_the_window_makes_equal_stop_every_workflow(files, chest_phantoms):
    parser = parsed(chest_phantoms, *files, max_caption_tokens=3)
    with pytest.raises(RuntimeError) as caught:
        parser.get_parsed_content("validate#inferer")
    assert isinstance(caught.value.__cause__, BundleError)
    assert "have equal tokens once cut to max_caption_tokens 3" in str(caught.value.__cause__)
