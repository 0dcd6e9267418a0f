import numpy as np
import torch

from cleft_bundle.reports.evaluation import CasePictures
from cleft_bundle.reports.evaluation.cases import choose_cases, outcomes


def test_a_perfect_classifier_has_no_missed_case_and_no_false_alarm(perfect):
    cases = choose_cases(perfect, 8)
    assert (cases["missed"], cases["false_alarms"]) == ([], [])
    assert len(cases["found"]) == 8


def test_errors_are_those_at_the_thresholds(make_scored):
    scored = make_scored()
    labels, called = scored.labels == 1, scored.scores >= [0.5, 0.4]
    happened = outcomes(scored)
    np.testing.assert_array_equal(happened["found"], labels & called)
    np.testing.assert_array_equal(happened["missed"], labels & ~called)
    np.testing.assert_array_equal(happened["false_alarms"], ~labels & called)
    for kind, cases in choose_cases(scored, 6).items():
        assert cases
        for case in cases:
            number = scored.class_names.index(case["class"])
            assert happened[kind][case["row"], number]
            assert case["score"] == scored.scores[case["row"], number]
            assert case["threshold"] == scored.thresholds[case["class"]]


def test_the_surest_come_first_and_no_patient_twice(make_scored):
    scored = make_scored()
    cases = choose_cases(scored, 6)
    found = outcomes(scored)["found"]
    assert cases["found"][0]["score"] == scored.scores[found[:, 0], 0].max()
    rows = [case["row"] for chosen in cases.values() for case in chosen]
    assert len(rows) == len(set(rows))
    for chosen in cases.values():
        assert len({scored.items[case["row"]]["patient_id"] for case in chosen}) == len(chosen)


def test_classes_that_exclude_each_other_are_called_by_the_highest_score(make_scored):
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=float)
    scores = np.array([[0.4, 0.3, 0.3], [0.1, 0.7, 0.2], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2], [0.6, 0.2, 0.2]])
    items = [{"name": f"{row}.png", "patient_id": f"{row:016x}"} for row in range(5)]
    scored = make_scored(class_names=["a", "b", "c"], task="multiclass", labels=labels, scores=scores, items=items,
                         thresholds={"a": 0.9, "b": 0.9, "c": 0.9})  # fmt: skip
    cases = choose_cases(scored, 8)
    assert {case["row"] for case in cases["found"]} == {0, 2}
    (missed,) = cases["missed"]
    assert (missed["row"], missed["class"], missed["called"], missed["threshold"]) == (1, "a", "b", None)
    assert cases["false_alarms"] == []  # the same image is among the missed
    assert outcomes(scored)["false_alarms"].sum() == 1  # neither an image of no class nor one of several counts


def test_without_thresholds_there_are_no_errors(make_scored):
    assert not any(choose_cases(make_scored(thresholds=None), 8).values())


def test_only_what_was_called_gets_a_heat_map(make_scored):
    scored = make_scored(items=[{**item, "image": item["name"]} for item in make_scored().items])
    pictures = CasePictures(3, lambda item: {"image": torch.rand(1, 16, 16)})
    asked = []

    def explain(item, image, name):
        asked.append(name)
        return np.random.default_rng(0).random((16, 16))

    cases = choose_cases(scored, 3)
    shown = {kind: pictures.picture(chosen, scored, explain) for kind, chosen in cases.items()}
    assert all(case["uri"].startswith("data:image/png") for chosen in shown.values() for case in chosen)
    assert all(case["heat"] for kind in ("found", "false_alarms") for case in shown[kind])
    assert all(case["heat"] is None for case in shown["missed"])
    assert len(asked) == len(cases["found"]) + len(cases["false_alarms"])
    assert "folder" not in str([{**case, "uri": ""} for case in shown["found"]])
