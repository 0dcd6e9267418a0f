"""What the configs look like: values at the top, components below, and their logic in named functions."""

import ast
import json
import re
from collections import Counter

import pytest
from monai.bundle.properties import InferProperties, TrainProperties

from cleft_bundle.config import _components
from tests.conftest import ROOT

FILES = sorted(path for path in (ROOT / "configs").glob("*.json") if path.name != "metadata.json")
CONTENTS = {path.name: json.loads(path.read_text()) for path in FILES}

#: MONAI's optional properties that this bundle has no use for: there is nothing to do after the network.
ABSENT = {"train_postprocessing", "val_postprocessing", "train_key_metric", "postprocessing", "key_metric"}


def expressions(value):
    if isinstance(value, str) and value.startswith("$"):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from expressions(child)


def calls(expression):
    tree = ast.parse(re.sub(r"@\w[\w#]*", "reference", expression[1:]).strip())
    return sum(isinstance(node, ast.Call) for node in ast.walk(tree))


@pytest.mark.parametrize("name", CONTENTS)
def test_an_expression_calls_one_function_at_most(name):
    assert [text for text in expressions(CONTENTS[name]) if calls(text) > 1] == []


def test_an_expression_is_short_and_decides_nothing_by_a_call():
    """``if`` chooses between two values that are there; what chooses between works has a name and a test."""
    texts = [text for content in CONTENTS.values() for text in expressions(content)]
    assert [text for text in texts if len(text) > 130] == []
    deciding = [text for text in texts if " if " in text and calls(text)]
    assert deciding == ["$cleft_bundle.data.list_images(@dataset_dir) if @dataset_dir is not None else []"]


def test_calls_are_counted():
    assert calls("$@network_def.learn_prompt(@prompt).to(@device)") == 2
    assert calls("$@splits['train']") == 0


def test_train_json_is_short_and_what_people_change_stands_at_its_top():
    lines = (ROOT / "configs" / "train.json").read_text().splitlines()
    assert len(lines) <= 300
    assert max(map(len, lines)) <= 150
    content = CONTENTS["train.json"]
    scalars = [key for key, value in content.items() if str(value)[:1] not in ("$", "@", "{", "[")]
    assert list(content).index("image_backbone") == list(content).index("tokenizer_source") + 1
    below = [key for key in scalars if list(content).index(key) > list(content).index("image_backbone")]
    assert below == ["image_peft", "embedding_dim", "pooling", "text_pooling", "text_dtype", "text_checkpointing"]


@pytest.mark.parametrize(("name", "properties"), [("train.json", TrainProperties), ("inference.json", InferProperties)])
def test_every_id_that_monai_names_is_there(name, properties):
    lacking = set()
    for key, description in properties.items():
        node = CONTENTS[name]
        for part in description["id"].split("::"):
            node = node[part] if isinstance(node, dict) and part in node else None
        if node is None and CONTENTS[name].get(description["id"], "") is not None:
            lacking.add(key)
    assert lacking <= ABSENT


def test_one_function_trains_and_configs_begin_alike():
    targets = Counter()
    for content in CONTENTS.values():
        targets.update(str(part["_target_"]) for _, part in _components("", content))
    assert targets["cleft_bundle.engines.run_training"] == 1
    assert {name for name, content in CONTENTS.items() if "initialize" in content} == {"train.json", "inference.json"}


def test_a_component_id_at_the_top_names_one_kind_of_thing():
    replaced = {"items", "loss", "network_def", "optimizer", "tokenize", "candidate", "prepare", "peft", "prompts"}
    kinds = {}
    for content in CONTENTS.values():
        for key, value in content.items():
            if isinstance(value, dict) and "_target_" in value and "#" not in key and key not in replaced:
                kinds.setdefault(key, set()).add(value["_target_"])
    assert {key: found for key, found in kinds.items() if len(found) > 1} == {}
