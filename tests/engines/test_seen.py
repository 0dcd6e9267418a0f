"""What a classifier's file tells of the images that it was validated on."""

import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator

from cleft_bundle.engines.seen import SeenImages, describe_seen, grey_levels


@pytest.fixture
def images():
    return (
        torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.linspace(0.2, 2, 23)[:, None, None, None]
    )


def test_grey_levels_are_mean_and_standard_deviation_of_all_pixels(images):
    found = grey_levels(images).numpy()
    flat = images.numpy().reshape(23, -1)
    np.testing.assert_allclose(found, np.column_stack([flat.mean(axis=1), flat.std(axis=1, ddof=1)]), rtol=1e-5)


def test_many_images_are_told_by_deciles_and_few_by_fewer(images):
    greys = torch.rand(100, 2, generator=torch.Generator().manual_seed(1))
    found = describe_seen(greys)
    assert found["images"] == 100
    expected = np.quantile(greys[:, 0].double(), np.arange(1, 10) / 10)
    np.testing.assert_allclose(found["grey_mean"], expected, rtol=1e-4)
    assert "embedding" not in found
    for count, cuts in ((10, 1), (23, 3), (49, 8), (50, 9)):  # five images between any two quantiles
        assert len(describe_seen(greys[:count])["grey_spread"]) == cuts


def test_of_fewer_than_ten_images_nothing_but_their_number_is_told(images):
    greys = grey_levels(images[:9])
    assert describe_seen(greys, torch.rand(9, 4)) == {"images": 9}


def test_embeddings_are_told_by_their_mean_variance_and_distances():
    rows = torch.randn(40, 6, generator=torch.Generator().manual_seed(2)) + 3
    found = describe_seen(torch.rand(40, 2), rows)["embedding"]
    values = rows.double().numpy()
    np.testing.assert_allclose(found["mean"], values.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["variance"], values.var(axis=0, ddof=1), rtol=1e-4)
    distance = np.linalg.norm(values - values.mean(axis=0), axis=1)
    np.testing.assert_allclose(found["distance"], np.quantile(distance, np.arange(1, 8) / 8), rtol=1e-4)


@pytest.mark.parametrize("retrieval", [True, False])
def test_an_evaluation_gathers_all_batches_of_its_last_run_alone(images, retrieval):
    def infer(inputs, network):
        pooled = inputs.flatten(2).mean(dim=2)
        return {"logits": pooled, **({"image_embedding": pooled} if retrieval else {})}

    batches = [{"image": part, "label": torch.zeros(len(part), 3)} for part in images.split(10)]
    evaluator = SupervisedEvaluator("cpu", batches, torch.nn.Identity(), inferer=infer, decollate=False)
    seen = SeenImages()
    assert seen.describe() == {}
    seen.attach(evaluator)
    evaluator.run()
    evaluator.run()
    pooled = images.flatten(2).mean(dim=2)
    assert seen.describe() == describe_seen(grey_levels(images), pooled if retrieval else None)
    assert ("embedding" in seen.describe()) == retrieval
