"""Two processes with half a batch each against one process with all of it, in float64: float32 only rounds alike."""

import os

import pytest
import torch
import torch.distributed as dist

from cleft_bundle.engines.strategy import sharing
from cleft_bundle.engines.training_step import mean_of_all
from cleft_bundle.losses import ContrastiveLoss, SigmoidLoss
from cleft_bundle.networks import CLEFT, ImageEncoder, Lora, TextEncoder
from tests import processes
from tests.conftest import TINY_GPT2, TINY_VIT

LOSSES = {
    "caption": ContrastiveLoss("caption"),
    "index": ContrastiveLoss("index"),
    "labels": ContrastiveLoss("labels"),
    "sigmoid": SigmoidLoss("caption"),
}


def build(bias):
    text = TextEncoder(TINY_GPT2, embedding_dim=8, peft=Lora(r=2, dropout=0.0), unfreeze=["embeddings"])
    return CLEFT(ImageEncoder(TINY_VIT, embedding_dim=8), text, logit_bias=bias).double()


def batch(rows):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(8, 3, 28, 28, generator=generator, dtype=torch.float64)
    ids = torch.randint(1, 700, (8, 5), generator=generator)
    ids[3], ids[6] = ids[0], ids[1]
    mask = torch.ones_like(ids)
    ids[:, -1], mask[:, -1] = 0, 0
    label = torch.randint(0, 2, (8, 3), generator=generator).float()
    target = {"caption": ids.sum(dim=1), "index": ids.sum(dim=1), "labels": label, "sigmoid": ids.sum(dim=1)}
    return image[rows], ids[rows], mask[rows], {name: value[rows] for name, value in target.items()}


def step(name, rows):
    network = build(-2.0 if name == "sigmoid" else None)
    image, ids, mask, target = batch(rows)
    shared = sharing(network)
    loss = LOSSES[name](shared.run(lambda: network(image, ids, mask)), target[name])
    loss.backward()
    return mean_of_all(loss), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    results = {name: step(name, slice(4 * rank, 4 * rank + 4)) for name in LOSSES}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, free_port):
    processes.spawn(worker, (free_port, str(tmp_path)), 2)
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in LOSSES:
            loss, gradients = step(name, slice(None))
            torch.testing.assert_close(results[name][0], loss, atol=1e-10, rtol=0)
            assert results[name][1].keys() == gradients.keys()
            for parameter, gradient in gradients.items():
                torch.testing.assert_close(results[name][1][parameter], gradient, atol=1e-10, rtol=0, msg=parameter)
