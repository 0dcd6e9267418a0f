import math

import pytest

from cleft_bundle.engines import epochs_for, learnable_items, load_evaluated, short_warmup, validation_interval
from cleft_bundle.errors import BundleError
from cleft_bundle.networks import DualEncoder
from tests.conftest import tiny_dual_encoder


def test_a_network_without_weights_is_evaluated_only_where_it_comes_with_its_own(make_network):
    with pytest.raises(BundleError, match="checkpoint is not set"):
        load_evaluated(make_network(), None)
    load_evaluated(DualEncoder(tiny_dual_encoder("siglip")), None)


def test_items_are_learnable_where_every_class_has_a_usable_image():
    items = [{"label": [1.0, 0.0]}, {"label": [0.0, 1.0]}, {"label": [math.nan, math.nan]}]
    assert learnable_items(items, ["a", "b"], "multilabel", 1.0) == items[:2]
    with pytest.raises(BundleError, match="no positive image of b"):
        learnable_items(items[:1], ["a", "b"], "multiclass", 1.0)


@pytest.mark.parametrize(
    ("batches", "least_epochs", "least_steps", "epochs"), [(7, 10, 0, 10), (7, 2, 15, 3), (5, 1, 15, 3)]
)
def test_a_short_training_has_so_many_epochs_and_so_many_steps(batches, least_epochs, least_steps, epochs):
    assert epochs_for([None] * batches, least_epochs, least_steps) == epochs


def test_validations_and_warm_up_are_a_tenth():
    assert [validation_interval(epochs) for epochs in (1, 10, 39)] == [1, 1, 3]
    assert [short_warmup(updates) for updates in (9, 10, 39)] == [0, 1, 3]
