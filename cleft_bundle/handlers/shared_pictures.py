"""Pictures that training and validation share under different patients."""

from __future__ import annotations

from ignite.engine import Events
from monai.engines import Evaluator, Trainer

from cleft_bundle.checkpoints.trained_on import TrainedOn
from cleft_bundle.data.pictures import known_pictures, shared_pictures, warn_of_shared
from cleft_bundle.distributed import gather_lists, rank


class SharedPictures:
    """Say which pictures training and validation share, and let the files of the run remember all of them.

    The caches know the pictures of what they hold. Where they are filled while the training runs, it is looked again
    at its end.

    Args:
        evaluator: the validation engine.
        trained_on: what the files of the run remember.
    """

    def __init__(self, evaluator: Evaluator, trained_on: TrainedOn) -> None:
        self.evaluator = evaluator
        self.trained_on = trained_on
        self.known = -1

    def attach(self, engine: Trainer) -> None:
        """Look at what the caches know now, and register with a trainer for its end."""
        self(engine)
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Trainer) -> None:
        """Compare and remember the pictures that are known by now."""
        found = {
            "train": known_pictures(engine.data_loader.dataset),
            # each process validates its own share
            "validation": gather_lists(known_pictures(self.evaluator.data_loader.dataset)),
        }
        self.trained_on.see(found)
        known = shared_pictures(found)["known"]
        if known != self.known and rank() == 0:
            warn_of_shared(found)
        self.known = known
