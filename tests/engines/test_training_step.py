import copy
import math

import pytest
import torch
from monai.engines import SupervisedTrainer

from cleft_bundle.engines import PrepareImageText, TrainingStep
from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import Lora
from tests import processes
from tests.conftest import ROOT


def batch(tokenize, size=12, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    captions = ["edema", "cardiomegaly", "no finding", "edema, fracture", "pleural effusion"]
    index = torch.arange(size) % len(captions)
    return {
        "image": torch.randn(size, 3, 28, 28, generator=generator).to(dtype),
        "caption_index": index,
        "caption_id": index,
        **tokenize(captions),
    }


def trained(network, batches, step, **trainer):
    """The network after the batches, and the engine."""
    network = copy.deepcopy(network)
    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
        loss_function=ContrastiveLoss(),
        prepare_batch=PrepareImageText(),
        iteration_update=step,
        decollate=False,
        **trainer,
    )
    torch.manual_seed(0)
    engine.run()
    return network, engine


def assert_equal_weights(first, second, atol):
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=0, msg=name)


def test_a_step_equals_that_of_monai(make_network, tokenize):
    network = make_network(peft=Lora(r=2, dropout=0.0))
    ours, _ = trained(network, [batch(tokenize)], TrainingStep())
    monais, _ = trained(network, [batch(tokenize)], None)
    assert_equal_weights(ours, monais, 1e-7)


@pytest.mark.parametrize(("size", "chunk_size"), [(12, 1), (12, 5), (12, 100), (256, 16)])
def test_chunks_give_the_gradient_of_the_whole_batch(size, chunk_size, make_network, tokenize):
    network = make_network(peft=Lora(r=2, dropout=0.0)).double()  # what rounding leaves differs between processors
    inputs = batch(tokenize, size, torch.float64)
    whole, engine = trained(network, [inputs], TrainingStep())
    chunked, other = trained(network, [inputs], TrainingStep(chunk_size=chunk_size))
    assert_equal_weights(whole, chunked, 1e-9)
    assert float(engine.state.output["loss"]) == pytest.approx(float(other.state.output["loss"]), abs=1e-9)


@pytest.mark.slow
def test_a_batch_of_256_in_chunks_of_16_needs_about_the_memory_of_16():
    done = processes.run(["-m", "tests.engines.chunk_memory", "16", "256/16", "256"], ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    sixteen, chunked, whole = map(float, done.stdout.split())
    assert whole > 4 * sixteen, "the test is too small to tell"
    assert chunked - sixteen < 0.15 * (whole - sixteen), (
        f"{chunked:.0f} MB in chunks, {sixteen:.0f} MB for 16, {whole:.0f} MB for 256"
    )


def test_both_passes_of_a_chunk_drop_the_same(make_network, tokenize):
    """With dropout the two passes must agree, or the gradient would be that of another loss."""
    network = make_network(peft=Lora(r=2, dropout=0.5))
    seen = []
    encode = network.encode_text

    def recorded(ids, mask):
        seen.append(encode(ids, mask))
        return seen[-1]

    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    engine_batch = batch(tokenize)
    network.encode_text = recorded
    step, first = TrainingStep(chunk_size=2), network.text_encoder.projection.weight.detach().clone()
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[engine_batch],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=ContrastiveLoss(),
        prepare_batch=PrepareImageText(),
        iteration_update=step,
        decollate=False,
    )
    trainer.run()
    assert len(seen) == 6
    for without, with_gradient in zip(seen[:3], seen[3:], strict=True):
        torch.testing.assert_close(without, with_gradient)
    assert not torch.equal(first, network.text_encoder.projection.weight)


def test_accumulation_is_the_mean_of_the_batches(make_network, tokenize):
    network = make_network(peft=Lora(r=2, dropout=0.0))
    other = batch(tokenize) | {"image": torch.randn(12, 3, 28, 28, generator=torch.Generator().manual_seed(1))}
    accumulated, _ = trained(network, [batch(tokenize), other], TrainingStep(), accumulation_steps=2)
    gradients = []
    for part in (batch(tokenize), other):
        moved, _ = trained(network, [part], TrainingStep())
        gradients.append([a - b for a, b in zip(network.parameters(), moved.parameters(), strict=True)])
    for before, after, first, second in zip(network.parameters(), accumulated.parameters(), *gradients, strict=True):
        torch.testing.assert_close(before - after, (first + second) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("autocast", [None, "bfloat16"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_parts_trained_amid_frozen_ones_of_fewer_bits_take_steps_in_chunks_too(dtype, autocast, make_network, tokenize):
    network = make_network(peft=Lora(r=2, dropout=0.0), dtype=dtype, unfreeze=["embeddings"])
    whole, _ = trained(network, [batch(tokenize)], TrainingStep(autocast=autocast))
    chunked, _ = trained(network, [batch(tokenize)], TrainingStep(chunk_size=5, autocast=autocast))
    moves = [
        moved.text_encoder.language_model.wte.weight - network.text_encoder.language_model.wte.weight
        for moved in (whole, chunked)
    ]
    assert (moves[0] - moves[1]).norm() < 0.02 * moves[0].norm()  # what rounding leaves
    assert whole.text_encoder.embed_tokens(torch.arange(3)).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("step", [TrainingStep(), TrainingStep(chunk_size=5), None], ids=["ours", "chunks", "monais"])
def test_a_scale_beyond_its_bound_comes_back(step, make_network, tokenize):
    """On random embeddings a scale of 100 is far too sure of itself, so that the gradient points down."""
    network = make_network()
    with torch.no_grad():
        network.logit_scale.fill_(6.0)
    moved, engine = trained(network, [batch(tokenize)] * 3, step)
    assert engine.state.output["pred"][2] <= 100 * (1 + 1e-5)
    assert moved.logit_scale < (math.log(100) if step else 6.0)
    assert network.logit_scale == 6.0


@pytest.mark.parametrize(
    ("bound", "learnt", "expected"), [(100.0, True, math.log(100)), (None, True, 6.0), (100.0, False, 6.0)]
)
def test_a_learnt_scale_is_brought_to_its_bound_after_an_update(bound, learnt, expected, make_network, tokenize):
    network = make_network()
    network.max_logit_scale = bound
    with torch.no_grad():
        network.logit_scale.fill_(6.0)
    network.logit_scale.requires_grad_(learnt)
    group = batch(tokenize)
    moved, _ = trained(network, [group], TrainingStep(max_grad_norm=1e-9))  # no gradient moves it as far as this
    assert float(moved.logit_scale) == pytest.approx(expected, abs=1e-6)


def test_long_gradients_are_scaled_down(make_network, tokenize):
    network = make_network()
    moved, _ = trained(network, [batch(tokenize)], TrainingStep(max_grad_norm=1e-3))
    norm = torch.stack([(a - b).norm() for a, b in zip(network.parameters(), moved.parameters(), strict=True)]).norm()
    assert float(norm) == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_autocast_rounds_and_keeps_the_loss_in_float32(make_network, tokenize):
    network = make_network(peft=Lora(r=2, dropout=0.0))
    _, exact = trained(network, [batch(tokenize)], TrainingStep())
    _, rounded = trained(network, [batch(tokenize)], TrainingStep(autocast="bfloat16"))
    assert rounded.state.output["loss"].dtype == torch.float32
    difference = abs(float(exact.state.output["loss"]) - float(rounded.state.output["loss"]))
    assert 0 < difference < 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_size": 0}, "chunk_size: expected 1 or more"),
        ({"max_grad_norm": 0}, "max_grad_norm: expected a number above 0"),
        ({"autocast": "float16"}, "autocast: expected bfloat16 or null, got 'float16'"),
    ],
)
def test_wrong_values_are_refused(arguments, message):
    with pytest.raises(BundleError, match=message):
        TrainingStep(**arguments)


def test_a_loss_that_is_no_number_stops_the_run(make_network, tokenize):
    broken = batch(tokenize)
    broken["image"][0] = float("nan")
    with pytest.raises(BundleError, match="the loss is nan in step 1"):
        trained(make_network(), [broken], TrainingStep())
