import numpy as np
import pytest

from cleft_bundle.metrics import retrieval_metrics


def slow_recall(similarity, image_caption, text_caption, k):
    """Recall from rows to columns by sorting each row."""
    hits = [image_caption[row] in text_caption[np.argsort(-values)[:k]] for row, values in enumerate(similarity)]
    return np.mean(hits)


@pytest.mark.parametrize("seed", range(5))
def test_recall_equals_sorting_every_row(seed):
    rng = np.random.default_rng(seed)
    captions = rng.integers(0, 12, 40)
    table = rng.normal(size=(12, 8))
    text = table[captions]
    image = text + rng.normal(scale=1.5, size=text.shape)
    metrics = retrieval_metrics(image, text, captions)
    distinct = np.unique(captions)
    similarity = image @ table[distinct].T
    for k in (1, 5, 10):
        assert metrics[f"image_to_text_recall_at_{k}"] == pytest.approx(slow_recall(similarity, captions, distinct, k))
        assert metrics[f"text_to_image_recall_at_{k}"] == pytest.approx(
            slow_recall(similarity.T, distinct, captions, k)
        )


def test_any_image_of_a_caption_is_a_hit():
    text = np.eye(2)[[0, 0, 1]]
    image = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.5]])  # the first image is wrong, the second right
    metrics = retrieval_metrics(image, text, np.array([7, 7, 8]), ks=(1,))
    assert metrics["image_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert metrics["text_to_image_recall_at_1"] == pytest.approx(1 / 2)
