import numpy as np
import pytest

from cleft_bundle.data.collate import caption_id
from cleft_bundle.metrics import ImageToText, resample, retrieval_chance, retrieval_metrics, retrieval_ranks


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
    assert (image_rank["level"] == 1).all()
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


@pytest.mark.parametrize("tower", ["text", "image"])
def test_a_collapsed_tower_finds_what_chance_finds(tower):
    rng = np.random.default_rng(1)
    captions = rng.integers(0, 200, 400)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same = np.repeat(vectors[:1], 400, axis=0) * (1 + 1e-7 * rng.normal(size=(400, 1)).astype(np.float32))
    image, text = (vectors, same) if tower == "text" else (same, vectors)
    chance = retrieval_chance(captions)
    metrics = retrieval_metrics(*retrieval_ranks(image, text, captions))
    direction = "image_to_text" if tower == "text" else "text_to_image"
    for k in (1, 5, 10):
        name = f"{direction}_recall_at_{k}"
        assert metrics[name] == pytest.approx(chance[name], rel=1e-6)
    distinct = len(np.unique(captions))
    assert chance["image_to_text_recall_at_1"] == 1 / distinct
    if tower == "text":
        assert metrics["image_to_text_median_rank"] == (distinct + 1) / 2


def test_chance_and_ties_are_what_shuffling_gives():
    rng = np.random.default_rng(2)
    captions = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 5, 6, 7])
    image = np.eye(3)[rng.integers(0, 3, 12)]  # similarities of 0 and 1, level in many places
    text = np.eye(3)[rng.integers(0, 3, 8)][captions]
    metrics = retrieval_metrics(*retrieval_ranks(image, text, captions), ks=(1, 3))
    shuffled = {name: [] for name in metrics}
    for _ in range(1500):
        noise = 1e-3 * rng.random((12, 8))
        similarity = image @ text[np.unique(captions, return_index=True)[1]].T + noise
        for k in (1, 3):
            shuffled[f"image_to_text_recall_at_{k}"].append(slow_recall(similarity, captions, np.arange(8), k))
            shuffled[f"text_to_image_recall_at_{k}"].append(slow_recall(similarity.T, np.arange(8), captions, k))
    for name, values in shuffled.items():
        if values:
            assert metrics[name] == pytest.approx(np.mean(values), abs=0.02)


def test_no_recall_at_as_many_as_there_are():
    rank, captions = np.array([0, 1, 2, 0, 1]), np.array([0, 0, 1])
    names = {name for name in retrieval_metrics(rank, captions) if "recall" in name}
    assert names == {"image_to_text_recall_at_1", "text_to_image_recall_at_1"}  # of 3 captions and 5 images
    assert set(retrieval_chance(np.array([0, 1, 2, 0, 1]))) == names


def test_captions_that_a_tokenizer_does_not_tell_apart_are_one():
    ids = np.array([caption_id(tokens) for tokens in ((4, 7), (4, 7), (9,))])
    image = np.array([[1.0, 0], [0.9, 0.1], [0, 1]])
    text = np.array([[1.0, 0], [1, 0], [0, 1]])
    assert len(retrieval_ranks(image, text, ids)[1]) == 2
    assert retrieval_metrics(*retrieval_ranks(image, text, ids))["image_to_text_recall_at_1"] == 1
