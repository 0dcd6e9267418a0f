import numpy as np
import pytest
import torch
from studies import labelling
from studies.labelling import MEASURES, Embedded, advantages, labelling_figure, simulate_labelling

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import STRATEGIES
from cleft_bundle.networks import ImageEncoder, ZeroShotClassifier
from tests.conftest import TINY_VIT

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def start():
    """A classifier of three classes that knows nothing."""
    classifier = ZeroShotClassifier(ImageEncoder(TINY_VIT, embedding_dim=8), NAMES, "multiclass")
    classifier.class_weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(9)) / 10
    return classifier.eval()


def embedded(kind, count):
    rng = np.random.default_rng(len(kind) + count)
    classes = rng.integers(0, 3, count)
    rows = np.eye(8)[classes] * 1.5 + rng.normal(size=(count, 8))
    items = [
        {"name": f"{kind}{n}", "patient_id": f"{kind}{n // 2}", "label": np.eye(3)[c].tolist()}
        for n, c in enumerate(classes)
    ]
    return Embedded(items, torch.tensor(rows, dtype=torch.float32))


@pytest.fixture(scope="module")
def curves(start):
    return simulate_labelling(start, embedded("pool", 200), embedded("test", 150), rounds=2, labels=10, seeds=2)


def test_every_strategy_starts_alike_and_learns(curves):
    assert len(curves) == len(STRATEGIES) * 2 * 3
    assert sorted(curves["labels"].unique()) == [0, 10, 20]
    assert curves[curves["labels"] == 0].nunique()["auroc_macro"] == 1
    means = curves.groupby("labels")[list(MEASURES)].mean()
    assert (means.loc[20] > means.loc[0] + 0.1).all()


def test_each_round_labels_new_images_of_the_same_pool(start, monkeypatch):
    seen, rank = [], labelling.rank_unlabelled

    def spy(strategy, scores, rows, labelled, *rest, names, **options):
        chosen, found = rank(strategy, scores, rows, labelled, *rest, names=names, **options)
        seen.append((strategy, tuple(names), set(np.flatnonzero(labelled)), set(chosen.tolist())))
        return chosen, found

    monkeypatch.setattr(labelling, "rank_unlabelled", spy)
    simulate_labelling(start, embedded("pool", 200), embedded("test", 60), ["margin", "random"], 3, 5, 2)
    assert len(seen) == 2 * 2 * 3
    pools = [names for _, names, _, _ in seen]
    assert len(set(pools[:6])) == len(set(pools[6:])) == 1
    assert pools[0] != pools[6]
    for number, (strategy, _, labelled, chosen) in enumerate(seen):
        assert len(chosen) == 5
        assert not chosen & labelled
        if number % 3:
            assert labelled == seen[number - 1][2] | seen[number - 1][3], strategy


def test_advantages_are_paired_by_seed(curves):
    ahead = advantages(curves, "accuracy")
    assert set(ahead.index) == set(STRATEGIES) - {"random"}
    rows = curves[curves["labels"] > 0].set_index(["strategy", "seed", "labels"])["accuracy"]
    by_hand = [
        np.mean([rows["margin", seed, n] - rows["random", seed, n] for n in (10, 20)]) for seed in (0, 1)
    ]  # fmt: skip
    assert ahead["mean"]["margin"] == pytest.approx(np.mean(by_hand))
    assert (ahead["low"]["margin"], ahead["high"]["margin"]) == pytest.approx((min(by_hand), max(by_hand)))
    assert ahead["seeds_ahead"]["margin"] == sum(value > 0 for value in by_hand)


def test_the_picture_has_axes_labels_and_a_legend(curves):
    figure = labelling_figure(curves, "phantoms")
    assert [axes.get_ylabel() for axes in figure.axes] == [f"{name} on test patients" for name in MEASURES.values()]
    assert {axes.get_xlabel() for axes in figure.axes} == {"labelled images"}
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == list(STRATEGIES)
    means = curves[curves["strategy"] == "coreset"].groupby("labels")["accuracy"].mean()
    np.testing.assert_allclose(figure.axes[1].get_lines()[2].get_ydata(), means)


def test_a_shared_patient_and_a_small_pool_are_refused(start):
    with pytest.raises(BundleError, match="2 patients are in the pool and among those that are measured on"):
        simulate_labelling(start, embedded("x", 100), embedded("x", 4))
    with pytest.raises(BundleError, match=r"a pool of .* images is too small for 5 rounds of 20 labels"):
        simulate_labelling(start, embedded("pool", 100), embedded("test", 10))
