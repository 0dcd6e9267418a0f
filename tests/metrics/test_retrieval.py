import numpy as np
import pytest

from cleft_bundle.metrics import ImageToText, resample, retrieval_metrics, retrieval_ranks


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
    image_rank, text_rank = retrieval_ranks(image, text, captions)
    metrics = retrieval_metrics(image_rank, text_rank)
    distinct = np.unique(captions)
    similarity = image @ table[distinct].T
    for k in (1, 5, 10):
        assert metrics[f"image_to_text_recall_at_{k}"] == pytest.approx(slow_recall(similarity, captions, distinct, k))
        assert metrics[f"text_to_image_recall_at_{k}"] == pytest.approx(
            slow_recall(similarity.T, distinct, captions, k)
        )
    sorted_captions = distinct[np.argsort(-similarity, axis=1)]
    places = [list(row).index(own) + 1 for row, own in zip(sorted_captions, captions, strict=True)]
    assert metrics["image_to_text_median_rank"] == np.median(places)


def test_ranks_do_not_depend_on_how_many_images_are_taken_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    image, text, captions = rng.normal(size=(40, 8)), rng.normal(size=(12, 8)), rng.integers(0, 12, 40)
    whole = retrieval_ranks(image, text[captions], captions)
    monkeypatch.setattr("cleft_bundle.metrics.retrieval._CELLS", 40)
    for one, other in zip(whole, retrieval_ranks(image, text[captions], captions), strict=True):
        np.testing.assert_array_equal(one, other)


def test_recall_is_resampled_by_patient():
    rank = np.array([0, 0, 3, 7] * 10)
    patients = np.arange(40) // 2
    resampled = resample(ImageToText(rank, patients), patients, resamples=200)
    interval = resampled.interval("image_to_text_recall_at_1", 0.95)
    assert (interval.value, interval.n_images, interval.n_patients) == (0.5, 40, 20)
    assert 0.2 < interval.low < 0.4  # of 20 patients, all or none of whose images are hits
    assert 0.6 < interval.high < 0.8


def test_any_image_of_a_caption_is_a_hit():
    text = np.eye(2)[[0, 0, 1]]
    image = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.5]])  # the first image is wrong, the second right
    metrics = retrieval_metrics(*retrieval_ranks(image, text, np.array([7, 7, 8])), ks=(1,))
    assert metrics["image_to_text_recall_at_1"] == pytest.approx(2 / 3)
    assert metrics["text_to_image_recall_at_1"] == pytest.approx(1 / 2)
