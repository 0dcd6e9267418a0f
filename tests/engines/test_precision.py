"""Precision by device, and compiled towers, which change nothing but the time."""

import copy
import functools
import logging

import pytest
import torch
from torch import nn

from cleft_bundle.checkpoints import TrainedState
from cleft_bundle.engines import TrainingStep, adamw, assembly, training_engine
from cleft_bundle.engines.precision import compile_towers, precision_of
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import Lora
from tests.engines.test_training_step import assert_equal_weights, batch, trained

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU by what PyTorch says of it; float32 of the processor is left as it was."""
    said = {"bfloat16": True}
    before = torch.get_float32_matmul_precision()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: said["bfloat16"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old one")
    yield said
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("given", "has", "taken", "matrices"),
    [
        ("auto", True, "bfloat16", "high"),
        ("auto", False, None, "high"),
        ("bfloat16", True, "bfloat16", "high"),
        (None, True, None, "highest"),
    ],
)
def test_a_gpu_takes_bfloat16_and_tf32_unless_told_otherwise(given, has, taken, matrices, gpu, caplog):
    gpu["bfloat16"] = has
    with caplog.at_level(logging.WARNING):
        assert precision_of(given, GPU) == taken
    assert torch.get_float32_matmul_precision() == matrices
    told = ["autocast: an old one has no bfloat16: float32 is taken"] if not has else []
    assert caplog.messages == told


@pytest.mark.parametrize(("given", "taken"), [("auto", None), (None, None), ("bfloat16", "bfloat16")])
def test_a_processor_stays_in_float32_unless_told_otherwise(given, taken):
    before = torch.get_float32_matmul_precision()
    assert precision_of(given, CPU) == taken
    assert torch.get_float32_matmul_precision() == before


def test_adamw_is_fused_and_keeps_float32_beside_autocast(make_network, tokenize):
    network = make_network()
    optimizer = adamw(network, 1e-3, 1e-3, 0.1)
    arguments = {"max_epochs": 1, "loss_function": lambda pred, target: pred.image.sum(), "autocast": "bfloat16"}
    training_engine(
        device=CPU, network=network, optimizer=optimizer, train_data_loader=[batch(tokenize)], **arguments
    ).run()
    assert all(group["fused"] for group in optimizer.param_groups)
    kept = [value for state in optimizer.state.values() for value in (state["exp_avg"], state["exp_avg_sq"])]
    assert {value.dtype for value in [*kept, *optimizer.state]} == {torch.float32}


class Backend:
    """A compiler that counts what it is given and leaves it as it is."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ({}, {}),
        ({}, {"chunk_size": 5}),
        ({"gradient_checkpointing": True}, {}),
        ({"dtype": "bfloat16"}, {"autocast": "bfloat16"}),
    ],
    ids=["plain", "chunks", "recomputed", "bfloat16"],
)
def test_compiled_towers_take_the_same_step(text, step, make_network, tokenize):
    torch.compiler.reset()
    network = make_network(peft=Lora(r=2, dropout=0.0), **text)
    names = list(network.state_dict())
    plain, _ = trained(network, [batch(tokenize)] * 2, TrainingStep(**step))
    compiled, backend = copy.deepcopy(network), Backend()
    compile_towers(compiled, backend)
    moved, _ = trained(_Kept(compiled), [batch(tokenize)] * 2, TrainingStep(**step))
    assert backend.graphs >= 2, "both towers are compiled"
    assert_equal_weights(plain, moved, 1e-5)
    assert list(moved.state_dict()) == names
    assert not any("_orig_mod" in name for name in TrainedState(moved).state_dict()["weights"])
    del moved.__deepcopy__
    copied = copy.deepcopy(moved)  # as a classifier is made of it
    assert copied is not moved
    image = batch(tokenize)["image"]
    torch.testing.assert_close(copied.eval().encode_image(image), moved.eval().encode_image(image))


class _Kept:
    """A network that ``trained`` does not copy: a copy is not compiled."""

    def __new__(cls, network):
        network.__deepcopy__ = lambda memo: network
        return network


@pytest.mark.slow
def test_inductor_takes_the_same_step(make_network, tokenize):
    torch.compiler.reset()
    network = make_network(peft=Lora(r=2, dropout=0.0))
    plain, _ = trained(network, [batch(tokenize)] * 2, TrainingStep())
    compile_towers(network)
    moved, _ = trained(_Kept(network), [batch(tokenize)] * 2, TrainingStep())
    assert_equal_weights(plain, moved, 1e-5)


def test_no_compiler_is_one_line(make_network, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BundleError, match=r"compile: there is no C\+\+ compiler"):
        compile_towers(make_network())


def test_a_divided_network_is_not_compiled(make_network, monkeypatch):
    monkeypatch.setattr("cleft_bundle.engines.precision.FSDPModule", nn.Module)
    with pytest.raises(BundleError, match="compile: strategy fsdp gathers weights"):
        compile_towers(make_network())


def test_the_engine_compiles_where_it_is_asked_to(make_network, monkeypatch):
    network, seen = make_network(), []
    monkeypatch.setattr(assembly, "compile_towers", seen.append)
    optimizer = adamw(network, 1e-3, 1e-3, 0.1)
    engine = functools.partial(
        training_engine, device=CPU, network=network, optimizer=optimizer, train_data_loader=[0], max_epochs=1,
        loss_function=nn.Identity(),
    )  # fmt: skip
    engine()
    assert seen == []
    engine(compiled=True)
    assert seen == [network]
