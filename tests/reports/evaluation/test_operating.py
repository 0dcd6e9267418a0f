"""The images on which an evaluation chooses calibration and thresholds."""

import numpy as np
import torch
from ignite.engine import Events

from cleft_bundle.engines import validation_engine
from cleft_bundle.handlers import ZeroShotMetrics
from cleft_bundle.inferers import ZeroShotInferer
from cleft_bundle.metrics import Screening
from cleft_bundle.reports.evaluation.operating import Operating

PROMPTS = {"edema": ["edema", "signs of edema"], "no finding": ["no finding"]}


def batches(count):
    generator = torch.Generator().manual_seed(count)
    return [
        {
            "name": [f"{number}-{row}" for row in range(4)],
            "image": torch.randn(4, 3, 28, 28, generator=generator),
            "label": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]),
        }
        for number in range(count)
    ]


def test_of_the_validation_images_nothing_but_logits_is_computed(make_network, tokenize, monkeypatch):
    network = make_network().eval()
    texts = []

    def counting(captions):
        texts.extend(captions)
        return tokenize(captions)

    inferer = ZeroShotInferer(PROMPTS, counting, "multilabel", variants=True)
    texts.clear()  # the check of the prompts
    metric = {"zero_shot_auroc": ZeroShotMetrics(list(PROMPTS), "multilabel")}
    evaluator = validation_engine(
        device="cpu", val_data_loader=batches(3), network=network, inferer=inferer, key_val_metric=metric,
        val_handlers=[inferer],
    )  # fmt: skip
    ran = []
    evaluator.add_event_handler(Events.STARTED, lambda: ran.append(1))
    monkeypatch.setattr(type(network), "forward", None)  # which embeds captions for retrieval
    validation = batches(2)
    operating = Operating([{"name": name} for batch in validation for name in batch["name"]], validation, Screening())
    operating.gather(evaluator)
    assert ran == [], "handlers draw pictures of the evaluated images"
    assert texts == [text for prompts in PROMPTS.values() for text in prompts], "no prompt alone, and no caption"
    kept = {"class_names", "names", "patients", "logits", "label", "scores", "embeddings"}
    assert set(operating.details) == kept, "the images' embeddings are there anyway"
    with torch.no_grad():
        weights = inferer.embed_prompts(network)
        expected = [network.scale * network.encode_image(batch["image"]) @ weights.T for batch in validation]
    np.testing.assert_allclose(operating.details["logits"], torch.cat(expected), atol=1e-6)
    assert inferer.retrieval, "those of the evaluated images stay as they are asked for"
    assert inferer.variants
