import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.special import expit, log_softmax

from cleft_bundle.engines.strategy import sharing
from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ClassificationLoss
from tests import processes

NAN = float("nan")
TASKS = ["multiclass", "multilabel"]
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
#: Of these the first two and the last are of one class, the others of none, of several and unknown.
LABEL = torch.tensor([[0, 0, 1], [NAN, 1, NAN], [0, 0, 0], [1, 1, 0], [0, NAN, NAN], [1, 0, NAN]], dtype=torch.float64)


def reference(logits, label, task):
    """The mean and its gradient, by NumPy."""
    gradient = np.zeros_like(logits)
    if task == "multiclass":
        rows = np.flatnonzero((label == 1).sum(axis=1) == 1)
        truth = (label[rows] == 1).astype(float)
        losses = -(truth * log_softmax(logits[rows], axis=1)).sum(axis=1)
        gradient[rows] = (np.exp(log_softmax(logits[rows], axis=1)) - truth) / len(rows)
        return losses.mean(), gradient
    known = ~np.isnan(label)
    probability = expit(logits[known])
    gradient[known] = (probability - label[known]) / known.sum()
    return -np.log(np.where(label[known] == 1, probability, 1 - probability)).mean(), gradient


@pytest.mark.parametrize("task", TASKS)
def test_the_mean_and_its_gradient_are_those_of_the_usable_labels(task):
    logits = LOGITS.clone().requires_grad_()
    loss = ClassificationLoss(task)(logits, LABEL)
    loss.backward()
    expected, gradient = reference(LOGITS.numpy(), LABEL.numpy(), task)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(logits.grad, gradient, atol=1e-12)
    if task == "multiclass":
        assert not logits.grad[2:5].any(), "an image of none of the classes, or of several, trains none"


@pytest.mark.parametrize(("task", "label"), [("multiclass", LABEL[2:5]), ("multilabel", torch.full((3, 3), NAN))])
def test_a_batch_without_a_usable_label_changes_nothing(task, label):
    logits = LOGITS[:3].float().requires_grad_()
    loss = ClassificationLoss(task)(logits, label.float())
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_unknown_task_is_refused():
    with pytest.raises(BundleError, match="task: expected one of multiclass, multilabel"):
        ClassificationLoss("regression")


def step(task, rows):
    layer = torch.nn.Linear(3, 3, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3))
        layer.bias.zero_()
    shared = sharing(layer)
    loss = ClassificationLoss(task)(shared.run(lambda: layer(LOGITS[rows])), LABEL[rows])
    loss.backward()
    return loss.detach(), layer.weight.grad


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save({task: step(task, slice(3 * rank, 3 * rank + 3)) for task in TASKS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_with_unlike_numbers_of_usable_images_equal_one_with_all(tmp_path, free_port):
    processes.spawn(worker, (free_port, str(tmp_path)), 2)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for task in TASKS:
        loss, gradient = step(task, slice(None))
        torch.testing.assert_close(torch.stack([half[task][0] for half in halves]).mean(), loss)
        for half in halves:
            torch.testing.assert_close(half[task][1], gradient)
