"""``cleft import``: the authors' checkpoint as this package's, with the overlay that builds its network."""

import json
import shlex

import peft
import pytest
import torch

from cleft_bundle.checkpoints import load_trained
from cleft_bundle.checkpoints.official import import_official
from cleft_bundle.commands.configs import read_config
from cleft_bundle.data import phantoms
from cleft_bundle.networks import CLEFT, ImageEncoder, PromptLearner, TextEncoder
from tests import processes
from tests.checkpoints.released import LLM_WIDTH, embed, make_gpt2, make_state, make_vit, prefixed, prompt_tuned, writer


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def state():
    return make_state(make_vit(), make_gpt2())


@pytest.fixture
def write(tmp_path):
    return writer(tmp_path)


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    return phantoms.chest(str(tmp_path_factory.mktemp("chests")), patients=20, seed=0)


def run_command(*arguments):
    return processes.run(["-m", "cleft_bundle", "import", *map(str, arguments)], timeout=300)


def from_overlay(values):
    """The network that configs/train.json builds with the overlay, by the same arguments."""
    peft_values = {key: value for key, value in values["peft"].items() if key != "_target_"}
    width = values["embedding_dim"]
    image = ImageEncoder(values["image_backbone"], width, values["pooling"])
    text = TextEncoder(
        values["text_backbone"],
        width,
        peft.LoraConfig(**peft_values),
        values["unfreeze_text"],
        dtype=values["text_dtype"],
    )
    return CLEFT(image, text, max_logit_scale=values["network_def#max_logit_scale"])


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_the_command_writes_what_builds_the_network_again(tuned, state, write, tmp_path, tokenize):
    path = write(prompt_tuned(state, torch.randn(4, LLM_WIDTH)) if tuned else state)
    out = tmp_path / "models" / "cleft.pt"
    result = run_command(path, "--out", out)
    assert result.returncode == 0, result.stderr
    assert f"{len(state)} keys mapped" in result.stdout or tuned
    assert "img_encoder_q.model.blocks.N.attn.qkv.weight ->" in result.stdout
    values = json.loads((tmp_path / "models" / "cleft_net.json").read_text())
    assert values["text_backbone"] == str(tmp_path / "models" / "cleft_text_backbone")
    network = from_overlay(values)
    if tuned:
        words = {"input_ids": torch.tensor([[1], [0]]), "attention_mask": torch.tensor([[1], [0]])}
        network.learn_prompt(PromptLearner(network.text_encoder, lambda _: words, length=values["context_length"]))
    loaded = load_trained(network, out).eval()
    image = torch.randn(2, 3, 42, 42)
    for a, b in zip(embed(loaded, image), embed(import_official(path).network, image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_overlay_goes_onto_the_training_config(root, state, write, tmp_path):
    folder = tmp_path / "language_model"
    arguments = [write(state), "--out", tmp_path / "a.pt", "--text_backbone", folder, "--verbose"]
    result = run_command(*arguments)
    assert result.returncode == 0, result.stderr
    assert "img_encoder_q.model.blocks.1.attn.qkv.weight ->" in result.stdout
    parser = read_config([str(root / "configs" / "train.json"), str(tmp_path / "a_net.json")])
    network = load_trained(parser.get_parsed_content("network_def"), tmp_path / "a.pt").eval()
    image = torch.randn(2, 3, 42, 42)
    for a, b in zip(embed(network, image), embed(import_official(arguments[0]).network, image), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [False, True])
def test_the_command_that_is_printed_evaluates_the_checkpoint(tuned, root, state, write, chests, tmp_path):
    """With the tokenizer of the embedded default and a language model of its vocabulary."""
    state |= prefixed("text_encoder_q.model.", make_gpt2(vocab_size=768, n_positions=64))
    out = tmp_path / "models" / "cleft.pt"
    done = run_command(write(prompt_tuned(state, torch.randn(30, LLM_WIDTH)) if tuned else state), "--out", out)
    line = done.stdout.splitlines()[-1].removeprefix("evaluate it: ")
    values = {"dataset_dir": chests, "tracking_uri": "", "output_dir": tmp_path / "eval", "models_dir": tmp_path}
    values |= {"tokenizer_source": root / "configs" / "tokenizer_tiny", "image_size": 56, "num_workers": 0}
    options = [part for key, value in values.items() for part in (f"--{key}", str(value))]
    done = processes.run([*shlex.split(line)[1:], *options], cwd=root, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "zero shot auroc" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_ends_with_one_line_and_a_status(tmp_path):
    result = run_command(tmp_path / "absent.ckpt")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/absent.ckpt: this file does not exist")
    assert "Traceback" not in result.stderr
