import copy

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from cleft_bundle.engines import LinearHead, choose_strength, fit_head, linear_head, refit_head
from cleft_bundle.networks import TrainableClassifier

RNG = np.random.default_rng(0)
ROWS = RNG.normal(2, 3, (40, 6))
TRUE = LinearHead(torch.tensor(RNG.normal(size=(3, 6))), torch.tensor(RNG.normal(size=3)))
ELSEWHERE = LinearHead(torch.tensor(RNG.normal(size=(3, 6)) / 5), torch.zeros(3, dtype=torch.float64))


def labels_of(task):
    logits = TRUE.logits(torch.tensor(ROWS))
    if task == "multiclass":
        return torch.eye(3, dtype=torch.float64)[logits.argmax(dim=1)]
    labels = (logits > 0).double()
    labels[:5, 1] = torch.nan
    return labels


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_head_is_the_minimum_that_scipy_finds(task):
    labels, strength = labels_of(task).numpy(), 0.7
    centre = ROWS.mean(axis=0)
    spread = np.sqrt(((ROWS - centre) ** 2).sum(axis=1).mean())
    unit = (ROWS - centre) / spread
    start = np.column_stack([ELSEWHERE.weights * spread, ELSEWHERE.weights @ centre + ELSEWHERE.bias])

    def objective(values):
        head = values.reshape(3, 7)
        logits = unit @ head[:, :6].T + head[:, 6]
        if task == "multiclass":
            nll = -(labels * log_softmax(logits, axis=1)).sum(axis=1).mean()
        else:
            p = np.clip(expit(logits), 1e-12, 1 - 1e-12)
            nll = -np.nanmean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
        return nll + strength / (2 * len(unit)) * ((head - start) ** 2).sum()

    expected = minimize(objective, start.ravel(), options={"gtol": 1e-7, "maxiter": 5000}).x.reshape(3, 7)
    head = fit_head(torch.tensor(ROWS), torch.tensor(labels), ELSEWHERE, task, strength)
    logits = head.logits(torch.tensor(ROWS)).numpy()
    np.testing.assert_allclose(logits, unit @ expected[:, :6].T + expected[:, 6], atol=2e-3)


def test_strength_holds_the_head_where_it_starts():
    rows, labels = torch.tensor(ROWS), labels_of("multiclass")
    assert fit_head(rows, labels, ELSEWHERE, "multiclass", float("inf")) is ELSEWHERE
    moved = [
        float((fit_head(rows, labels, ELSEWHERE, "multiclass", strength).weights - ELSEWHERE.weights).norm())
        for strength in (1e-2, 1.0, 1e2, 1e8)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 1e-6
    weak = fit_head(rows, labels, ELSEWHERE, "multiclass", 1e-2)
    assert (weak.logits(rows).argmax(dim=1) == labels.argmax(dim=1)).all(), "separable labels are learnt"


def test_one_image_of_one_class_is_enough_to_fit():
    head = fit_head(torch.tensor(ROWS[:1]), torch.eye(3)[:1], ELSEWHERE, "multiclass", 1.0)
    assert torch.isfinite(head.weights).all()
    assert head.logits(torch.tensor(ROWS[:1])).argmax() == 0


def test_images_without_a_usable_label_change_neither_head_nor_strength():
    rows, labels = torch.tensor(ROWS), labels_of("multiclass")
    patients = [str(number // 2) for number in range(40)]
    strange = torch.tensor([[0.0, 0, 0], [1, 1, 0], [torch.nan] * 3]).double()
    more_rows, more = torch.cat([rows, rows[:3] * 9]), torch.cat([labels, strange])
    more[:40][more[:40] == 0] = torch.nan  # what one class says of the others need not be written down
    fitted = fit_head(rows, labels, ELSEWHERE, "multiclass", 1.0)
    assert torch.equal(fit_head(more_rows, more, ELSEWHERE, "multiclass", 1.0).weights, fitted.weights)
    assert choose_strength(more_rows, more, ELSEWHERE, "multiclass", [*patients, "0", "1", "2"]) == choose_strength(
        rows, labels, ELSEWHERE, "multiclass", patients
    )
    assert fit_head(rows[:3], strange, ELSEWHERE, "multiclass", 1.0) is ELSEWHERE


def test_strength_is_chosen_on_patients_who_were_left_out(monkeypatch):
    rows, labels = torch.tensor(ROWS), labels_of("multiclass")
    patients = [str(number // 2) for number in range(40)]
    fit, seen = linear_head.fit_head, []
    monkeypatch.setattr(linear_head, "fit_head", lambda x, *rest: seen.append(x) or fit(x, *rest))
    assert choose_strength(rows, labels, ELSEWHERE, "multiclass", patients) < 100
    for part in seen:
        inside = {patients[place] for place, row in enumerate(rows) if (part == row).all(dim=1).any()}
        assert len(part) == 2 * len(inside), "a patient lies in one fold"
    likely = torch.multinomial(TRUE.logits(rows).softmax(dim=1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert choose_strength(rows, torch.eye(3)[likely], TRUE, "multiclass", patients) >= 10, "the truth is left alone"
    assert choose_strength(rows, labels, ELSEWHERE, "multiclass", ["one"] * 40) == float("inf")


def test_refitting_changes_the_head_alone(classifier):
    before = copy.deepcopy(classifier)
    images = torch.randn(12, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    items = [
        {"image": image, "patient_id": str(number), "label": [float(number % 2), float(number % 2 == 0), 0.0]}
        for number, image in enumerate(images)
    ]
    refitted = refit_head(classifier, items, {"transform": Compose([]), "device": "cpu"})
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name]), name
    changed = [
        name for name, tensor in refitted.state_dict().items() if not torch.equal(tensor, classifier.state_dict()[name])
    ]
    assert {name.split(".")[0] for name in changed} <= {"class_weights", "bias", "temperature", "_extra_state"}


def test_a_head_goes_into_a_classifier_and_comes_out_again(classifier, images):
    changed = copy.deepcopy(classifier)
    changed.calibrate(2.0, [0.1, -0.2, 0.3], {"edema": 0.4}, rule="youden")
    scores = changed(images)
    changed.set_head(*changed.calibrated_head())
    torch.testing.assert_close(changed(images), scores)
    assert changed.operating_point == {"thresholds": {}, "rule": "youden"}
    assert float(changed.temperature) == 1.0
    torch.testing.assert_close(TrainableClassifier(changed)(images).sigmoid(), scores)


def test_a_trainable_classifier_starts_as_the_classifier_and_deploys_what_it_learnt(classifier, images):
    before = copy.deepcopy(classifier.state_dict())
    network = TrainableClassifier(classifier)
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.testing.assert_close(network.deployable()(images), classifier(images))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(images).square().sum().backward()
    # before the final norm the tokens are pooled, and nothing is masked
    left_out = [name.split(".")[-2:] for name, parameter in network.named_parameters() if parameter.grad is None]
    assert sorted(left_out) == [["embeddings", "mask_token"], ["layernorm", "bias"], ["layernorm", "weight"]]
    optimizer.step()
    deployed = network.deployable()
    torch.testing.assert_close(deployed(images), network(images).sigmoid())
    assert not torch.allclose(deployed(images), classifier(images))
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, before[name]), name
