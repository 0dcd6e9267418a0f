import inspect

from monai.engines import SupervisedEvaluator, SupervisedTrainer

from cleft_bundle.engines import adamw, training_engine, validation_engine


def test_the_engines_take_all_that_monais_take_and_say_so():
    for factory, engine in ((training_engine, SupervisedTrainer), (validation_engine, SupervisedEvaluator)):
        known = inspect.signature(factory).parameters
        assert not any(each.kind is each.VAR_KEYWORD for each in known.values())
        assert known.keys() - inspect.signature(engine).parameters.keys() <= {
            "text", "chunk_size", "max_grad_norm", "autocast", "max_steps", "compiled"
        }  # fmt: skip
        assert "amp" in known


def test_adamw_has_the_rate_of_the_config_in_its_groups(make_network):
    optimizer = adamw(make_network(), lr=0.1, backbone_lr=0.01, weight_decay=0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.1, 0.01}
    assert optimizer.defaults["lr"] == 0.1
