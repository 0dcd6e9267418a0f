import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from scipy.special import softmax

from cleft_bundle.handlers import ZeroShotMetrics
from cleft_bundle.metrics import Predictions, classification_metrics, retrieval_metrics, retrieval_ranks


def make_batches(count, size, classes):
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        embedding = torch.nn.functional.normalize(torch.randn(size, 4, generator=generator), dim=1)
        yield {
            "name": [f"{number}-{row}" for row in range(size)],
            "patient_id": [f"{number}-{row // 2}" for row in range(size)],
            "image": embedding,
            "label": torch.nn.functional.one_hot(
                torch.randint(0, classes, (size,), generator=generator), classes
            ).float(),
            "caption_id": torch.randint(0, 6, (size,), generator=generator),
            "logits": torch.randn(size, classes, generator=generator),
        }


def test_metrics_are_those_of_all_batches_together():
    batches = list(make_batches(3, 10, 3))
    queue = iter(batches)

    def inferer(inputs, network):
        return {"logits": next(queue)["logits"], "image_embedding": inputs, "text_embedding": inputs.flip(1)}

    metric = ZeroShotMetrics(["a", "b", "c"], "multiclass")
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=batches,
        network=torch.nn.Identity(),
        inferer=inferer,
        key_val_metric={"zero_shot_auroc": metric},
        decollate=False,
    )
    evaluator.run()
    joined = {
        key: torch.cat([batch[key] for batch in batches]).numpy()
        for key in batches[0]
        if key not in ("name", "patient_id")
    }
    names = [name for batch in batches for name in batch["name"]]
    scores = softmax(joined["logits"].astype(float), axis=1)
    predictions = Predictions(scores, joined["label"], ["a", "b", "c"], "multiclass", names, names)
    computed = classification_metrics(predictions)
    kept = ["auroc/a", "auroc/b", "auroc/c", "auroc_macro", "average_precision_macro", "accuracy", "balanced_accuracy"]
    expected = {name: computed[name] for name in kept}
    ranks = retrieval_ranks(joined["image"], np.flip(joined["image"], 1), joined["caption_id"])
    expected |= retrieval_metrics(*ranks)
    expected["zero_shot_auroc"] = expected.pop("auroc_macro")
    assert evaluator.state.metrics == pytest.approx(expected)
    assert evaluator.state.best_metric == pytest.approx(expected["zero_shot_auroc"])
    details = evaluator.state.metric_details["zero_shot_auroc"]
    np.testing.assert_allclose(details["scores"], scores, rtol=1e-12)
    np.testing.assert_array_equal(details["logits"], joined["logits"])
    assert details["names"] == names
    assert details["patients"] == [patient for batch in batches for patient in batch["patient_id"]]
    np.testing.assert_array_equal(details["image_rank"], ranks[0])
