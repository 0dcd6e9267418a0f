"""Batch norm of the ``mlp`` projection beside what changes a batch: chunks, folded captions, processes."""

import os

import pytest
import torch
import torch.distributed as dist
from monai.engines import SupervisedTrainer

from cleft_bundle.engines import PrepareImageText, TrainingStep
from cleft_bundle.errors import BundleError
from cleft_bundle.inferers import ClassPromptInferer
from cleft_bundle.losses import ClassificationLoss, ContrastiveLoss
from cleft_bundle.networks import (
    CLEFT,
    ImageClassifier,
    ImageEncoder,
    Lora,
    TextEncoder,
    TrainableClassifier,
    ZeroShotClassifier,
)
from tests import processes
from tests.conftest import TINY_GPT2, TINY_VIT
from tests.engines.test_training_step import assert_equal_weights, batch, trained

ADVICE = "set chunk_size to null"


def network(image="linear", text="linear"):
    return CLEFT(
        ImageEncoder(TINY_VIT, embedding_dim=8, projection=image),
        TextEncoder(TINY_GPT2, embedding_dim=8, projection=text, peft=Lora(r=2, dropout=0.0)),
    )


def one_step(network, data, step, loss, **trainer):
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[data],
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
        loss_function=loss,
        iteration_update=step,
        decollate=False,
        **trainer,
    ).run()


@pytest.mark.parametrize(("image", "text", "name"), [(6, "linear", "image_encoder"), ("linear", 6, "text_encoder")])
def test_chunks_are_refused_by_name_and_nothing_is_trained(image, text, name, tokenize):
    towers = network(image, text)
    before = [parameter.clone() for parameter in towers.parameters()]
    with pytest.raises(BundleError, match=rf"^chunk_size: .* projection \({name}\.projection\.1\).*{ADVICE}"):
        one_step(towers, batch(tokenize), TrainingStep(4), ContrastiveLoss(), prepare_batch=PrepareImageText())
    assert all(torch.equal(a, b) for a, b in zip(before, towers.parameters(), strict=True))


def test_a_frozen_projection_goes_by_its_running_statistics_in_chunks_and_stays_as_it_is(tokenize):
    towers = network(6, 6).double()
    for tower in (towers.image_encoder, towers.text_encoder):
        tower.projection.requires_grad_(False)
        for norm in (tower.projection[1], tower.projection[4]):
            norm.running_mean.normal_(generator=torch.Generator().manual_seed(0))
    inputs = batch(tokenize, dtype=torch.float64)
    whole, _ = trained(towers, [inputs], TrainingStep())
    chunked, _ = trained(towers, [inputs], TrainingStep(chunk_size=5))
    assert_equal_weights(whole, chunked, 1e-9)
    for (name, before), after in zip(towers.named_buffers(), chunked.buffers(), strict=True):
        assert torch.equal(before, after), name


def test_in_training_too_a_folded_caption_counts_once_an_image(tokenize):
    images = torch.randn(6, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    captions, index = ["edema", "cardiomegaly", "fracture"], torch.tensor([0, 1, 0, 2, 0, 0])
    towers = network(text=6).train()
    plain = towers(images, **tokenize([captions[number] for number in index]))
    folded = towers(images, **tokenize(captions), caption_index=index)
    torch.testing.assert_close(plain[1], folded[1], atol=1e-5, rtol=0)


def test_a_classifier_and_learnt_class_prompts_do_not_go_with_chunks(classifier, tokenize, make_network):
    label = torch.tensor([[1.0, 0.0, 0.0]] * 2)
    data = {"image": torch.zeros(2, 3, 28, 28), "label": label}
    labels = {"prepare_batch": PrepareImageText("label", text=False)}
    for other in (
        ImageClassifier(ImageEncoder(TINY_VIT), ["a", "b", "c"], "multilabel"),
        TrainableClassifier(classifier),
    ):
        with pytest.raises(BundleError, match=f"^chunk_size: {type(other).__name__} takes whole batches; {ADVICE}"):
            one_step(other, data, TrainingStep(2), ClassificationLoss("multilabel"), **labels)
    prompts = {name: [name] for name in ("edema", "fracture", "no finding")}
    labels["inferer"] = ClassPromptInferer(prompts, tokenize, "multilabel")
    with pytest.raises(BundleError, match=f"^chunk_size: ClassPromptInferer takes whole batches; {ADVICE}"):
        one_step(make_network(), data, TrainingStep(2), ClassificationLoss("multilabel"), **labels)


def test_one_image_has_no_statistics():
    encoder = ImageEncoder(TINY_VIT, embedding_dim=8, projection=6)
    served = ZeroShotClassifier(encoder, ["edema", "fracture"], "multilabel")
    data = {"image": torch.zeros(1, 3, 28, 28), "label": torch.tensor([[1.0, 0.0]])}
    prepare = PrepareImageText("label", text=False)
    with pytest.raises(BundleError, match=r"^batch_size: the batch norm of projection .* one image"):
        one_step(
            TrainableClassifier(served), data, TrainingStep(), ClassificationLoss("multilabel"), prepare_batch=prepare
        )
    # a head of its own takes the features before the projection, which is frozen
    own = ImageClassifier(encoder, ["edema", "fracture"], "multilabel")
    one_step(own, data, TrainingStep(), ClassificationLoss("multilabel"), prepare_batch=prepare)


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    caption = torch.tensor([[5, 6, 0], [7, 8, 0]])
    data = {
        "image": torch.zeros(2, 3, 28, 28),
        "input_ids": caption,
        "attention_mask": (caption > 0).long(),
        "caption_index": torch.arange(2),
        "caption_id": torch.arange(2) + 2 * rank,
    }
    said = []
    for projection in ("linear", 6):
        try:
            one_step(network(projection), data, TrainingStep(), ContrastiveLoss(), prepare_batch=PrepareImageText())
            said.append("trained")
        except BundleError as error:
            said.append(str(error))
    torch.save(said, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_several_processes_refuse_it_by_name(tmp_path, free_port):
    processes.spawn(worker, (free_port, str(tmp_path)), 2)
    for rank in range(2):
        linear, mlp = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert linear == "trained"
        assert mlp.startswith("projection: the batch norm of projection (image_encoder.projection.1)")
        assert mlp.endswith("set projection to linear")
