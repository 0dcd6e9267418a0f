"""Several processes with a share of each batch against one process with all of it, in float64."""

import os

import pytest
import torch
import torch.distributed as dist
from monai.engines import SupervisedTrainer
from torch.distributed.tensor import DTensor

from cleft_bundle.distributed import whole
from cleft_bundle.engines import PrepareImageText, TrainingStep
from cleft_bundle.engines.strategy import distribute
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers.rank_allocation import RankAllocation
from cleft_bundle.losses import ContrastiveLoss, SigmoidLoss
from cleft_bundle.networks import CLEFT, AdaLora, ImageClassifier, ImageEncoder, Lora, PromptLearner, TextEncoder
from tests import processes
from tests.conftest import TINY_GPT2, TINY_VIT

ROWS, STEPS, ACCUMULATED = 16, 4, 2
RANKED = AdaLora(init_r=3, target_r=2, dropout=0.0)

#: name: arguments of the network, of the step, and the loss
CASES = {
    "captions": ({}, {}, ContrastiveLoss("caption")),
    "labels": ({}, {}, ContrastiveLoss("labels")),
    "chunks": ({}, {"chunk_size": 2}, ContrastiveLoss("caption")),
    "clipped": ({}, {"max_grad_norm": 0.1}, ContrastiveLoss("index")),
    "full": ({"peft": "full"}, {"chunk_size": 3}, ContrastiveLoss("caption")),
    "sigmoid": ({"logit_bias": -2.0}, {"chunk_size": 2}, SigmoidLoss("caption")),
    "prompt": ({"prompt": True}, {}, ContrastiveLoss("caption")),
    "adalora": ({"peft": RANKED}, {"chunk_size": 2}, ContrastiveLoss("caption")),
}


def opening(captions):
    """Tokens of the words that a prompt starts from."""
    ids = torch.tensor([[5, 6, 0], [0, 0, 0]])[: len(captions)]
    return {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])[: len(captions)]}


def build(peft=None, logit_bias=None, prompt=False):
    method = peft or Lora(r=2, dropout=0.0)
    text = TextEncoder(TINY_GPT2 | {"n_layer": 2}, embedding_dim=8, peft=method, unfreeze=["embeddings"])
    network = CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), text, logit_bias=logit_bias)
    if prompt:
        network.learn_prompt(PromptLearner(text, opening, length=3))
    return network.double()


def batches(rank, world):
    generator = torch.Generator().manual_seed(0)
    rows = slice(rank * ROWS // world, (rank + 1) * ROWS // world)
    for _ in range(STEPS):
        image = torch.randn(ROWS, 3, 28, 28, generator=generator, dtype=torch.float64)
        ids = torch.randint(1, 700, (ROWS, 5), generator=generator)
        ids[3], ids[10] = ids[0], ids[1]  # equal captions, in one process and in two
        ids[13:] = ids[12]  # the last process has fewer distinct ones
        mask = torch.ones_like(ids)
        ids[:, -1] = mask[:, -1] = 0
        label = torch.randint(0, 2, (ROWS, 3), generator=generator).float()
        parts = {"image": image, "caption_id": ids.sum(dim=1), "label": label}
        distinct, index = torch.unique(ids[rows], dim=0, return_inverse=True)
        text = {"input_ids": distinct, "attention_mask": mask[: len(distinct)], "caption_index": index}
        yield {name: part[rows] for name, part in parts.items()} | text


def train(case, strategy, rank=0, world=1):
    """Train an epoch; the loss of its last step, and the weights that it trains."""
    network, step, loss = CASES[case]
    network = distribute(build(**network), strategy)
    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=list(batches(rank, world)),
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1, foreach=False),
        loss_function=loss,
        prepare_batch=PrepareImageText(loss.target),
        iteration_update=TrainingStep(**step),
        decollate=False,
    )
    engine.accumulation_steps = ACCUMULATED
    RankAllocation(network).attach(engine)
    engine.run()
    divided = any(isinstance(p, DTensor) for p in network.parameters())
    trained = {name: whole(p.detach()).clone() for name, p in network.named_parameters() if p.requires_grad}
    return {"loss": engine.state.output["loss"], "trained": trained, "divided": divided}


def worker(rank, world, port, folder, cases):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = {case: train(case[0], case[1], rank, world) for case in cases}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_train_as_one(world, tmp_path, free_port):
    names = CASES if world == 2 else ("captions", "chunks")
    cases = [(name, kind) for name in names for kind in ("ddp", "fsdp") if (name, kind) != ("adalora", "fsdp")]
    processes.spawn(worker, (world, free_port, str(tmp_path), cases), world)
    alone = {name: train(name, "auto") for name in names}
    for rank in range(world):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, kind in cases:
            one, several = alone[name], found[name, kind]
            assert several["divided"] == (kind == "fsdp")
            torch.testing.assert_close(several["loss"], one["loss"], atol=1e-9, rtol=0)
            assert several["trained"].keys() == one["trained"].keys()
            for parameter, value in one["trained"].items():
                difference = f"{name}, {kind}: {parameter}"
                torch.testing.assert_close(several["trained"][parameter], value, atol=1e-9, rtol=0, msg=difference)


def test_training_moves_every_case():
    for name, (arguments, _, _) in CASES.items():
        before = dict(build(**arguments).named_parameters())
        after = train(name, "auto")["trained"]
        assert any((value - before[parameter]).abs().max() > 1e-4 for parameter, value in after.items()), name


@pytest.mark.parametrize(("strategy", "message"), [("ddp", "there is one"), ("fsdp", "there is one"), ("dp", "one of")])
def test_what_one_process_cannot_do_is_refused(strategy, message):
    with pytest.raises(BundleError, match=f"strategy: .*{message}"):
        distribute(build(), strategy)


def test_one_process_is_not_for_several(monkeypatch):
    monkeypatch.setattr("cleft_bundle.engines.strategy.world_size", lambda: 2)
    with pytest.raises(BundleError, match="strategy: single is for one process, but there are 2"):
        distribute(build(), "single")
    with pytest.raises(BundleError, match="strategy: fsdp divides matrices that adalora must see as a whole"):
        distribute(build(RANKED), "fsdp")
    with pytest.raises(BundleError, match="strategy: fsdp does not divide a ImageClassifier; expected ddp"):
        distribute(ImageClassifier(ImageEncoder(TINY_VIT), ["a", "b"], "multilabel"), "fsdp")


@pytest.mark.parametrize(("memory", "divided"), [(1 << 40, False), (1 << 10, True)])
def test_auto_divides_what_does_not_fit(memory, divided, monkeypatch):
    seen = []
    monkeypatch.setattr("cleft_bundle.engines.strategy.world_size", lambda: 2)
    monkeypatch.setattr("cleft_bundle.engines.strategy.from_first", lambda value: value)
    monkeypatch.setattr("cleft_bundle.engines.strategy._divide", seen.append)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": memory}))
    distribute(build())
    assert bool(seen) == divided
