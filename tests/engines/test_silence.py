"""A step of a training waits for nothing: no number is read from the device between two reports."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from torch.utils._python_dispatch import TorchDispatchMode

from cleft_bundle.checkpoints import RunIdentity
from cleft_bundle.engines import adamw, training_engine, warmup_cosine
from cleft_bundle.errors import BundleError
from cleft_bundle.handlers import (
    LossCurve,
    Losses,
    PeriodicValidation,
    ProgressHandler,
    RunTracker,
    UpdateLrSchedule,
    loss_and_scale,
    mlflow_handler,
    step_values,
)
from cleft_bundle.losses import ClassificationLoss, ContrastiveLoss, SigmoidLoss
from cleft_bundle.networks import ImageClassifier, ImageEncoder
from tests.conftest import TINY_VIT
from tests.engines.test_training_step import batch

#: What a GPU has to be waited for: a number that Python wants, and shapes that depend on values.
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "item", "_unique2", "equal"}
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__")


def of_tokens():
    """Whether it is tokens that are read, which stay on the processor until they are laid out."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ or "torch" in Path(frame.f_code.co_filename).parts:
        frame = frame.f_back
    return frame.f_code.co_name in ("pack", "features")


class Waits(TorchDispatchMode):
    """Count what a device would be waited for, but for what is the processor's own anyway."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITS or (name == "index" and any(getattr(i, "dtype", None) == torch.bool for i in args[1])):
            self.found[name] += not of_tokens()
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    """Counts of the calls by which Python reads a tensor, and who called; tokens are on the processor anyway."""
    found = Counter()

    def counting(name, real):
        def call(self, *args, **kwargs):
            caller = sys._getframe(1)
            if not of_tokens():
                found[f"{name} in {caller.f_code.co_filename}:{caller.f_lineno}"] += 1
            return real(self, *args, **kwargs)

        return call

    for name in READS:
        monkeypatch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name)))
    return found


def validator():
    evaluator = SupervisedEvaluator(
        torch.device("cpu"), [0], torch.nn.Identity(), iteration_update=lambda engine, batch: {}
    )
    evaluator.state.key_metric_name = "auroc"
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update(auroc=0.5))
    return evaluator


def engine(network, loss, data, tmp_path, **more):
    """A trainer with the handlers of train.json, but for its checkpoints."""
    optimizer = adamw(network, 1e-3, 1e-3, 0.1)
    tracker = RunTracker(
        f"sqlite:///{tmp_path}/runs.db",
        RunIdentity("run", ()),
        experiment_name="silence",
        output_transform=loss_and_scale,
    )
    evaluator = validator()
    curve = LossCurve(str(tmp_path), evaluator, "")
    schedule = UpdateLrSchedule(warmup_cosine(optimizer, 1, 100))
    validation = PeriodicValidation(100, evaluator)
    handlers = [schedule, ProgressHandler("training", show_loss=True), validation, tracker, curve]
    trainer = training_engine(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=data, network=network, optimizer=optimizer,
        loss_function=loss, train_handlers=handlers, **more,
    )  # fmt: skip
    return trainer, tracker, curve


def networks(name, make_network):
    if name == "classifier":
        return ImageClassifier(ImageEncoder(TINY_VIT, embedding_dim=8), ["a", "b"], "multilabel", {})
    network = make_network()
    if name == "sigmoid":
        network.logit_bias = torch.nn.Parameter(torch.tensor(-10.0))
    return network


CASES = {
    "contrastive": (ContrastiveLoss(), {}),
    "labels": (ContrastiveLoss("labels"), {"max_grad_norm": 1.0, "accumulation_steps": 2}),
    "chunks": (ContrastiveLoss(), {"chunk_size": 5, "autocast": "bfloat16"}),
    "sigmoid": (SigmoidLoss(), {}),
    "classifier": (ClassificationLoss("multilabel"), {"text": False}),
    "multiclass": (ClassificationLoss("multiclass"), {"text": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_between_two_reports_a_step_waits_for_nothing(name, make_network, tokenize, tmp_path, reads, monkeypatch):
    loss, more = CASES[name]
    monkeypatch.setattr("cleft_bundle.handlers.progress.refresh_interval", lambda: 1e9)
    network = networks("classifier" if name == "multiclass" else name, make_network)
    label = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, float("nan")]]).repeat(4, 1)
    data = [batch(tokenize) | {"label": label} for _ in range(8)]
    trainer, _, _ = engine(network, loss, data, tmp_path, **more)
    waits = Waits()
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda: (reads.clear(), waits.__enter__()))
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=8), lambda: (waits.__exit__(None, None, None), seen.append(dict(reads)))
    )
    trainer.run()
    drawn = {"tolist"} if name == "chunks" else set()  # seeds, which the processor draws
    assert {call for call in seen[0] if call.split()[0] not in drawn} == set()
    assert +waits.found == Counter()


def test_waiting_is_counted(reads):
    with Waits() as waits:
        value = torch.tensor([1.0, 2.0])
        assert value.sum().item() == 3.0
        assert float(value[value > 1]) == 2.0
    assert waits.found["_local_scalar_dense"] == 2
    assert waits.found["index"] == 1
    assert sum(reads.values()) == 2


def test_every_loss_is_drawn_and_tracked_at_its_own_step(make_network, tokenize, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_handler, "_MOST", 9)  # three steps a batch of metrics
    trainer, tracker, curve = engine(make_network(), ContrastiveLoss(), [batch(tokenize)] * 7, tmp_path)
    losses = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.append(float(trainer.state.output["loss"])))
    batches, log = [], type(tracker.handler.client).log_batch
    monkeypatch.setattr(
        type(tracker.handler.client),
        "log_batch",
        lambda self, run_id, metrics=(), **more: (batches.append(len(metrics)), log(self, run_id, metrics, **more)),
    )
    trainer.run()
    client, run_id = tracker.handler.client, tracker.run_id
    history = client.get_metric_history(run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in history] == list(enumerate(losses, 1))
    rates = [metric.step for metric in client.get_metric_history(run_id, "lr_group_0")]
    assert rates == list(range(1, 8))
    assert curve.losses == losses
    assert max(batches) <= 9
    tracker.finish([], {})


def test_a_run_that_fails_loses_no_metric(make_network, tokenize, tmp_path):
    trainer, tracker, _ = engine(make_network(), ContrastiveLoss(), [batch(tokenize)] * 7, tmp_path)

    def fail():
        raise ZeroDivisionError

    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), fail)
    client, ids = tracker.handler.client, []
    trainer.add_event_handler(Events.STARTED, lambda: ids.append(tracker.run_id))
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert [metric.step for metric in client.get_metric_history(ids[0], "train_loss")] == [1, 2, 3, 4, 5]
    assert client.get_run(ids[0]).info.status == "FAILED"


def test_what_a_server_that_is_away_did_not_take_is_logged_later(make_network, tokenize, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_handler, "PAUSE", 0.0)
    monkeypatch.setattr(mlflow_handler, "REST", 0.0)
    trainer, tracker, _ = engine(make_network(), ContrastiveLoss(), [batch(tokenize)] * 6, tmp_path)
    client, real = tracker.handler.client, tracker.handler.client.client.log_batch

    def away(*args, **kwargs):
        if 2 <= trainer.state.iteration <= 4:
            raise ConnectionError
        return real(*args, **kwargs)

    monkeypatch.setattr(client.client, "log_batch", away)
    trainer.run()
    history = client.get_metric_history(tracker.run_id, "train_loss")
    assert sorted(metric.step for metric in history) == [1, 2, 3, 4, 5, 6]
    tracker.finish([], {})


@pytest.mark.parametrize(("bad", "seen"), [(3, ", seen after step 4"), (4, "")])
def test_a_loss_that_is_no_number_is_refused_before_anything_is_saved(
    bad, seen, make_network, tokenize, tmp_path, monkeypatch
):
    monkeypatch.setattr(step_values, "EVERY", 4)
    data = [batch(tokenize) for _ in range(9)]
    data[bad - 1]["image"] = torch.full_like(data[0]["image"], torch.nan)
    trainer, _, curve = engine(make_network(), ContrastiveLoss(), data, tmp_path)
    with pytest.raises(BundleError, match=f"^the loss is nan in step {bad}{seen}: a lower learning_rate"):
        trainer.run()
    assert trainer.state.iteration == 4
    assert curve.losses == []
    assert Losses.of(trainer) is Losses.of(trainer)


def test_weights_that_are_no_numbers_are_not_saved():
    with pytest.raises(BundleError, match="the weights are not finite after step 7: a lower learning_rate"):
        step_values.check_finite({"weights": {"a": torch.ones(2), "b": [torch.tensor([1.0, torch.inf])]}}, 7)
    step_values.check_finite({"weights": {"a": torch.ones(2)}, "steps": torch.tensor(3), "name": "b"}, 7)
