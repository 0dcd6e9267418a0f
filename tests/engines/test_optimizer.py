import torch

from cleft_bundle.engines import parameter_groups


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one(make_network):
    network = make_network()
    groups = parameter_groups(network, 1e-3, 1e-5, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_rates_and_decay(make_network):
    network = make_network()
    by_id = {
        id(p): (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, 1e-3, 1e-5, 0.1)
        for p in group["params"]
    }
    settings = {name: by_id[id(p)] for name, p in network.named_parameters() if p.requires_grad}
    assert settings["logit_scale"] == (1e-3, 0.0)
    assert settings["image_encoder.projection.weight"] == (1e-3, 0.1)
    assert settings["image_encoder.projection.bias"] == (1e-3, 0.0)
    assert settings["image_encoder.backbone.embeddings.cls_token"] == (1e-5, 0.0)
    attention = [
        value for name, value in settings.items() if "image_encoder.backbone.encoder" in name and "proj.weight" in name
    ]
    assert set(attention) == {(1e-5, 0.1)}
    assert {value for name, value in settings.items() if "lora_" in name} == {(1e-3, 0.1)}


def test_a_frozen_network_yields_no_empty_group(make_network):
    network = make_network()
    network.requires_grad_(False)
    network.logit_scale.requires_grad_(True)
    assert len(parameter_groups(network, 1e-3, 1e-5, 0.1)) == 1
    assert isinstance(parameter_groups(network, 1e-3, 1e-5, 0.1)[0]["params"][0], torch.nn.Parameter)
