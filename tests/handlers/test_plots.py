from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cleft_bundle.best_effort import begin_run
from cleft_bundle.handlers.plots import EvaluationPlots, confusion_figure, loss_figure, roc_figure, save_figure
from cleft_bundle.metrics import confusion_matrix

LABELS = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=float)
SCORES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])


def test_multiclass_confusion_counts_every_image_once():
    assert confusion_matrix(SCORES, LABELS).tolist() == [[1, 1], [1, 2]]


def test_an_image_with_several_findings_counts_in_the_row_of_each():
    labels = np.array([[1, 1], [1, np.nan]])
    scores = np.array([[0.9, 0.2], [0.6, 0.7]])
    assert confusion_matrix(scores, labels).tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize(
    "figure",
    [
        roc_figure(SCORES, LABELS, ["a", "b"], "phantoms"),
        confusion_figure(confusion_matrix(SCORES, LABELS), ["a", "b"], "phantoms"),
        loss_figure([3.0, 2.0, 1.0], [(2, 0.6), (3, 0.7)], "zero_shot_auroc", "phantoms"),
    ],
)
def test_pictures_are_drawn_and_not_blank(figure, tmp_path):
    figure.savefig(tmp_path / "figure.png")
    assert np.asarray(Image.open(tmp_path / "figure.png").convert("L")).std() > 5


def test_roc_legend_names_auroc_and_positives():
    legend = roc_figure(SCORES, LABELS, ["a", "b"], "phantoms").axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["a (0.833, n = 2)", "b (0.833, n = 3)"]


@pytest.mark.parametrize("count", [8, 150])
def test_pictures_of_many_classes_have_no_numbers_and_few_names(count, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.eye(count)[np.arange(600) % count]
    scores = rng.random((600, count)) + labels
    names = ["$a_{", "_b", "two\nlines", *(f"finding {number}" for number in range(3, count))]
    matrix = confusion_figure(confusion_matrix(scores, labels), names, "x $y_{")
    save_figure(matrix, tmp_path / "matrix.png")
    (axes,) = matrix.axes
    assert len(axes.texts) == (64 if count == 8 else 0)
    assert len(axes.get_xticks()) == min(count, 25)
    curves = roc_figure(scores, labels, names, "x")
    save_figure(curves, tmp_path / "curves.png")
    assert len(curves.axes[0].get_legend().get_texts()) == (8 if count == 8 else 6)
    assert len(curves.axes[0].lines) == count + 1


def test_a_picture_that_cannot_be_written_ends_nothing_and_leaves_no_earlier_one(tmp_path, monkeypatch, caplog):
    begin_run()
    plots = EvaluationPlots(str(tmp_path), "x")
    details = {"class_names": ["a", "b"], "scores": SCORES, "label": LABELS}
    state = SimpleNamespace(key_metric_name="auroc", metric_details={"auroc": details})
    plots(SimpleNamespace(state=state))
    assert {path.name for path in tmp_path.iterdir()} == {"roc_curves.png", "confusion_matrix.png"}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    for _ in range(3):
        plots(SimpleNamespace(state=state))
    assert list(tmp_path.iterdir()) == []
    assert [record.name for record in caplog.records] == ["cleft_bundle.best_effort"] * 2
