import numpy as np
import pytest
from PIL import Image

from cleft_bundle.handlers.plots import confusion_figure, loss_figure, roc_figure
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
