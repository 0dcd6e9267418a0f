import pytest
import torch

from cleft_bundle.engines import PrepareImageText


def batch():
    return {
        "image": torch.zeros(2, 3, 4, 4),
        "input_ids": torch.ones(1, 3, dtype=torch.int64),
        "attention_mask": torch.ones(1, 3, dtype=torch.int64),
        "caption_index": torch.tensor([0, 0]),
        "caption_id": torch.tensor([5, 5]),
        "label": torch.tensor([[1.0], [0.0]]),
    }


@pytest.mark.parametrize("target", ["caption_id", "label"])
def test_it_gives_image_target_and_text(target):
    image, got, args, text = PrepareImageText(target)(batch(), "cpu")
    assert image.shape == (2, 3, 4, 4)
    assert torch.equal(got, batch()[target])
    assert args == ()
    assert set(text) == {"input_ids", "attention_mask", "caption_index"}


def test_a_classifier_of_images_gets_no_text():
    images_only = {key: value for key, value in batch().items() if key in ("image", "label")}
    _, got, args, text = PrepareImageText("label", text=False)(images_only)
    assert torch.equal(got, batch()["label"])
    assert (args, text) == ((), {})


def test_a_missing_target_is_an_error_not_none():
    incomplete = batch()
    del incomplete["caption_id"]
    with pytest.raises(KeyError, match="caption_id"):
        PrepareImageText()(incomplete)
