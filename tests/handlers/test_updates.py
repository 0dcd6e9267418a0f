import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from cleft_bundle.engines import TrainingStep, warmup_cosine
from cleft_bundle.handlers import UpdateLrSchedule, count_updates, ends_group
from cleft_bundle.handlers.updates import batches_of, has_updated, updates_done
from cleft_bundle.networks.protocol import Network


class Slope(Network):
    """One weight, whose gradient is the batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.weight * image

    def penalty(self):
        return 0.0


def trainer(step, batches=5, epochs=2, accumulation_steps=2):
    """An engine whose batches are the numbers 1 to 5."""
    network = Slope()
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=[
            {"image": torch.tensor([number]), "label": 0.0} for number in torch.arange(1.0, batches + 1)
        ],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda pred, target: pred.mean(),
        prepare_batch=lambda batch, device, non_blocking, **_: (batch["image"], batch["label"], (), {}),
        iteration_update=step,
        decollate=False,
        accumulation_steps=accumulation_steps,
    )


@pytest.mark.parametrize("accumulation_steps", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_groups_fill_an_epoch_and_the_last_one_ends_it(length, accumulation_steps):
    ends = [step for step in range(1, length + 1) if ends_group(step, length, accumulation_steps)]
    assert (
        len(ends)
        == count_updates(length, accumulation_steps)
        == (length + accumulation_steps - 1) // accumulation_steps
    )
    assert ends[-1] == length
    assert ends[:-1] == [accumulation_steps * (n + 1) for n in range(len(ends) - 1)]


@pytest.mark.parametrize("step", [TrainingStep(), None], ids=["ours", "monais"])
def test_accumulated_gradients_are_those_of_monai_s_own_trainer(step):
    engine = trainer(step)
    sums, apply = [], engine.optimizer.step
    engine.optimizer.step = lambda: (sums.append(float(engine.network.weight.grad)), apply())
    engine.run()
    assert sums == [1.5, 3.5, 2.5, 1.5, 3.5, 2.5]


@pytest.mark.parametrize("step", [TrainingStep(), None], ids=["ours", "monais"])
def test_updates_are_counted_and_the_schedule_follows_them(step):
    engine = trainer(step)
    schedule = warmup_cosine(engine.optimizer, 2, updates=6)
    UpdateLrSchedule(schedule).attach(engine)
    seen = []
    engine.add_event_handler(
        IterationEvents.MODEL_COMPLETED,
        lambda: seen.append((updates_done(engine), schedule.last_epoch)) if has_updated(engine) else None,
    )
    engine.run()
    assert seen == [(number, number) for number in range(1, 7)]
    assert engine.optimizer.param_groups[0]["lr"] == pytest.approx(0)


def test_a_schedule_that_was_stored_goes_on_where_it_was():
    first, second = trainer(TrainingStep()), trainer(TrainingStep())
    schedules = [warmup_cosine(engine.optimizer, 2, updates=6) for engine in (first, second)]
    UpdateLrSchedule(schedules[0]).attach(first)
    first.state.max_epochs = 1
    first.run()
    schedules[1].load_state_dict(schedules[0].state_dict())
    for schedule in schedules:
        schedule.step()
    assert [schedule.last_epoch for schedule in schedules] == [4, 4]
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr() != [1.0]


@pytest.mark.parametrize("accumulation_steps", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_so_many_updates_are_so_many_batches(length, accumulation_steps):
    """Epoch by epoch, group by group: the batches that end a group are those after which an update is done."""
    ends = [
        epoch * length + step
        for epoch in range(3)
        for step in range(1, length + 1)
        if ends_group(step, length, accumulation_steps)
    ]
    assert [batches_of(number, length, accumulation_steps) for number in range(1, len(ends) + 1)] == ends
