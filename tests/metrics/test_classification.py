from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from cleft_bundle.errors import BundleError
from cleft_bundle.metrics import METRICS, Predictions, binary_confusion, classification_metrics, confusion_matrix
from tests.metrics.predictions import make


def calibration_error(truth, score, bins=15):
    truths, scores = calibration_curve(truth, score, n_bins=bins)
    members = np.bincount(np.ceil(np.maximum(score * bins, 1e-9)).astype(int), minlength=bins + 1)
    members = members[members > 0]
    return np.sum(np.abs(truths - scores) * members) / members.sum()


def expected_of_class(truth, score, threshold=0.5):
    """What scikit-learn has for one class whose labels are all known."""
    called = score >= threshold
    both = len(set(truth)) == 2
    values = {
        "auroc": sk.roc_auc_score(truth, score) if both else np.nan,
        "average_precision": sk.average_precision_score(truth, score) if both else np.nan,
        "f1": sk.f1_score(truth, called, zero_division=np.nan),
        "precision": sk.precision_score(truth, called, zero_division=np.nan),
        "sensitivity": sk.recall_score(truth, called, zero_division=np.nan),
        "specificity": sk.recall_score(1 - truth, ~called, zero_division=np.nan),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called) if both else np.nan,
        "brier": np.mean((truth - score) ** 2),
        "ece": calibration_error(truth, score),
    }
    return {name: value for name, value in values.items() if not np.isnan(value)}


def check_multilabel(predictions):
    computed = classification_metrics(predictions)
    expected, per_metric = {}, {}
    for index, name in enumerate(predictions.class_names):
        known = ~np.isnan(predictions.labels[:, index])
        if known.any():
            values = expected_of_class(predictions.labels[known, index], predictions.scores[known, index])
            expected |= {f"{metric}/{name}": value for metric, value in values.items()}
            for metric, value in values.items():
                per_metric.setdefault(metric, []).append(value)
    expected |= {f"{metric}_macro": np.mean(values) for metric, values in per_metric.items()}
    assert computed == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_multilabel_metrics_are_those_of_scikit_learn(seed, ties):
    check_multilabel(make(seed, ties=ties))


@given(
    arrays(float, st.tuples(st.integers(1, 25), st.just(2)), elements=st.sampled_from([0.0, 0.05, 0.5, 0.75, 1.0])),
    st.data(),
)
def test_awkward_input_agrees_too(scores, data):
    labels = data.draw(arrays(float, scores.shape, elements=st.sampled_from([0.0, 1.0, np.nan])))
    names = list(map(str, range(len(scores))))
    check_multilabel(Predictions(scores, labels, ["a", "b"], "multilabel", names, names))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_multiclass_metrics_are_those_of_scikit_learn(ties, absent):
    predictions = make(3, task="multiclass", classes=4, ties=ties)
    if absent:  # the last class has no image left
        predictions = predictions.select(predictions.labels[:, 3] != 1)
    known = ~np.isnan(predictions.labels[:, 0])
    truth, score = predictions.labels[known].argmax(axis=1), predictions.scores[known]
    called = score.argmax(axis=1)
    present = sorted(set(truth))
    recall, precision, f1 = (
        dict(enumerate(function(truth, called, labels=range(4), average=None, zero_division=np.nan)))
        for function in (sk.recall_score, sk.precision_score, sk.f1_score)
    )
    specificity = {index: sk.recall_score(truth != index, called != index) for index in range(4)}
    auroc = {index: sk.roc_auc_score(truth == index, score[:, index]) for index in present}
    average = {index: sk.average_precision_score(truth == index, score[:, index]) for index in present}
    tables = {"auroc": auroc, "average_precision": average, "specificity": specificity}
    tables |= {"sensitivity": recall, "precision": precision, "f1": f1}
    expected = {
        f"{metric}/c{index}": value
        for metric, table in tables.items()
        for index, value in table.items()
        if not np.isnan(value)
    }
    expected |= {f"{metric}_macro": np.nanmean(list(table.values())) for metric, table in tables.items()}
    expected["accuracy"] = sk.accuracy_score(truth, called)
    expected["balanced_accuracy"] = np.mean([recall[index] for index in present])
    expected["brier"] = np.mean(np.sum((np.eye(4)[truth] - score) ** 2, axis=1))
    expected["ece"] = calibration_error((truth == called).astype(float), score.max(axis=1))
    assert classification_metrics(predictions) == pytest.approx(expected, abs=1e-6)
    assert f1[3] == 0 if absent else f1[3] > 0  # called, though absent


def test_scores_that_are_all_equal_rank_nothing():
    predictions = replace(make(unknown=0), scores=np.full((120, 3), 0.5))
    metrics = classification_metrics(predictions)
    assert metrics["auroc_macro"] == 0.5
    assert metrics["average_precision_macro"] == pytest.approx(predictions.labels.mean())


def test_a_class_with_one_side_only_is_absent_and_left_out_of_the_mean():
    predictions = make()
    labels = predictions.labels.copy()
    labels[:, 1] = 0
    metrics = classification_metrics(replace(predictions, labels=labels))
    assert not {"auroc/c1", "average_precision/c1", "sensitivity/c1", "balanced_accuracy/c1"} & set(metrics)
    assert metrics["auroc_macro"] == pytest.approx((metrics["auroc/c0"] + metrics["auroc/c2"]) / 2)
    assert "specificity/c1" in metrics


def test_nothing_is_known_at_all():
    predictions = make()
    assert classification_metrics(replace(predictions, labels=np.full((120, 3), np.nan))) == {}


def test_metrics_and_thresholds_are_chosen():
    predictions = make(unknown=0)
    chosen = classification_metrics(predictions, [0.2, 0.5, 1.1], ["sensitivity"])
    assert chosen.keys() == {"sensitivity/c0", "sensitivity/c1", "sensitivity/c2", "sensitivity_macro"}
    assert chosen["sensitivity/c0"] == sk.recall_score(predictions.labels[:, 0], predictions.scores[:, 0] >= 0.2)
    assert chosen["sensitivity/c2"] == 0


def test_logits_have_a_ranking_but_no_calibration():
    predictions = replace(make(), scores=make().scores * 10)
    assert "auroc_macro" in classification_metrics(predictions, metrics=["auroc"])
    with pytest.raises(BundleError, match="calibration needs probabilities, got scores from"):
        classification_metrics(predictions, metrics=["ece"])


def test_multiclass_metrics_of_all_classes_are_those_of_the_images_of_exactly_one():
    predictions = make(7, task="multiclass", unknown=0)
    labels = predictions.labels.copy()
    labels[:10], labels[10:15] = 0, [1, 0, 1]
    labels[15:20][labels[15:20] == 0] = np.nan  # a positive beside unknowns is that class
    found = classification_metrics(replace(predictions, labels=labels))
    usable = predictions.select(np.arange(15, len(predictions)))
    expected = classification_metrics(usable)
    names = ["accuracy", "balanced_accuracy", "brier", "ece"]
    assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names})
    counted = np.r_[0:10, 15 : len(predictions)]  # none of the classes: a negative of each
    for column in range(3):
        truth = np.where(counted < 10, 0, predictions.labels[counted, column])
        auroc = sk.roc_auc_score(truth, predictions.scores[counted, column])
        assert found[f"auroc/c{column}"] == pytest.approx(auroc)


def test_unknown_metric_and_wrong_number_of_thresholds():
    with pytest.raises(
        BundleError, match=f"metrics: expected one of {', '.join(METRICS)}, observed_expected, got 'auc'"
    ):
        classification_metrics(make(), metrics=["auc"])
    with pytest.raises(BundleError, match="thresholds: expected one number or 3, one per class, got"):
        classification_metrics(make(), [0.5, 0.5])


def test_confusion_of_classes_and_of_each_class():
    predictions = make(task="multiclass")
    known = ~np.isnan(predictions.labels[:, 0])
    truth, called = predictions.labels[known].argmax(axis=1), predictions.scores[known].argmax(axis=1)
    expected = sk.confusion_matrix(truth, called)
    assert confusion_matrix(predictions.scores, predictions.labels).tolist() == expected.tolist()
    predictions = make(unknown=0)
    expected = sk.multilabel_confusion_matrix(predictions.labels, predictions.scores >= 0.4)
    assert binary_confusion(predictions, 0.4).tolist() == expected.tolist()


def test_observed_to_expected_is_a_quotient_of_sums():
    predictions = make(3)
    metrics = classification_metrics(predictions, metrics=["observed_expected"])
    for number in range(3):
        known = ~np.isnan(predictions.labels[:, number])
        expected = predictions.labels[known, number].sum() / predictions.scores[known, number].sum()
        assert metrics[f"observed_expected/c{number}"] == pytest.approx(expected)
    single = make(4, task="multiclass")
    known = (single.labels == 1).any(axis=1)
    hits = single.scores[known].argmax(axis=1) == single.labels[known].argmax(axis=1)
    found = classification_metrics(single, metrics=["observed_expected"])
    assert found == {"observed_expected": pytest.approx(hits.sum() / single.scores[known].max(axis=1).sum())}
