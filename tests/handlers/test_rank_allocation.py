import torch
from monai.engines import SupervisedTrainer

from cleft_bundle.engines import PrepareImageText, TrainingStep
from cleft_bundle.handlers import RankAllocation
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import AdaLora


def train(network, allocation, tokenize, epochs, accumulation_steps=1):
    batch = {
        "image": torch.randn(4, 3, 28, 28, generator=torch.Generator().manual_seed(0)),
        "caption_index": torch.arange(4),
        "caption_id": torch.arange(4),
        **tokenize(["edema", "cardiomegaly", "no finding", "pleural effusion"]),
    }
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=[batch] * 5,
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1),
        loss_function=ContrastiveLoss(),
        prepare_batch=PrepareImageText(),
        iteration_update=TrainingStep(),
        decollate=False,
        accumulation_steps=accumulation_steps,
    )
    allocation.attach(trainer)
    trainer.run()


def ranks(network):
    return sum(int((p != 0).sum()) for name, p in network.named_parameters() if "lora_E" in name)


def test_ranks_are_pruned_to_the_target_on_the_average(make_network, tokenize):
    network = make_network(peft=AdaLora(init_r=4, target_r=2))
    train(network, RankAllocation(network), tokenize, epochs=4)
    layers = sum("lora_E" in name for name, _ in network.named_parameters())
    assert ranks(network) == 2 * layers


def test_with_accumulation_updates_are_counted(make_network, tokenize, monkeypatch):
    network, seen = make_network(peft=AdaLora(init_r=4, target_r=2)), []
    model = network.text_encoder.backbone.base_model
    monkeypatch.setattr(model, "update_and_allocate", seen.append)
    train(network, RankAllocation(network), tokenize, epochs=2, accumulation_steps=2)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert model.rankallocator.peft_config.total_step == 6


def test_importances_survive_a_restart(make_network):
    network, other = (make_network(peft=AdaLora(init_r=4, target_r=2)) for _ in range(2))
    allocator = network.text_encoder.backbone.base_model.rankallocator
    for number, name in enumerate(("ipt", "exp_avg_ipt", "exp_avg_unc")):
        setattr(allocator, name, {"layer.lora_E": torch.full((4, 1), float(number))})
    restarted = RankAllocation(other)
    restarted.load_state_dict(RankAllocation(network).state_dict())
    for number, values in enumerate(restarted.state_dict()["language model"].values()):
        assert torch.equal(values["layer.lora_E"], torch.full((4, 1), float(number)))


def test_other_methods_have_nothing_to_allocate(make_network, tokenize):
    network = make_network()
    allocation = RankAllocation(network)
    train(network, allocation, tokenize, epochs=1)
    assert allocation.state_dict() == {"language model": {}}
