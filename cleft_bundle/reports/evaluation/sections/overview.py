"""The head of the page: the figures at the top, and what has to be known to read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cleft_bundle.reports.evaluation.sections.parts import better, cell, title_of

#: What a file used patients for, as people read it.
ROLES = {
    "weights": "its weights were trained on",
    "epoch": "its epoch was chosen on",
    "calibration": "its calibration was fitted on",
    "thresholds": "its thresholds were chosen on",
    "prompts": "its prompts were learnt from",
}


def tiles(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures at the top: ``title``, ``note``, ``text``, ``range``, ``better`` and ``mark`` (a warning, or "")."""
    count = len(content["classes"])
    mean = f"mean of {count} classes"
    if content["task"] == "multiclass":
        wanted = {"accuracy": "the highest score is right", "balanced_accuracy": "mean sensitivity"}
    else:
        limited = len(content["operating_points"]["classes"])
        words = "mean of the classes, at their thresholds"
        if limited < count:
            words = f"mean of {limited} classes, at thresholds" if limited > 1 else "of one class, at its threshold"
        wanted = {"sensitivity_macro": words, "specificity_macro": words}
    wanted = {"auroc_macro": mean, "average_precision_macro": mean} | wanted
    mark = "trained or tuned on some of these patients" if has_chosen(content) else ""
    return [
        {"title": title_of(name), "note": note, "better": better(name), "mark": mark, **cell(content["metrics"][name])}
        for name, note in wanted.items()
        if name in content["metrics"]
    ]


def has_chosen(content: Mapping[str, Any]) -> bool:
    """True where any of the reported patients chose anything of the classifier, so that figures may flatter it."""
    chosen = content["operating_points"]["chosen"]
    seen = (content["pictures"] or {}).get("seen", {})
    return any([*(content["roles"] or {}).values(), *seen.values(), bool(chosen.get("same_images"))])


def role_lines(content: Mapping[str, Any]) -> list[str]:
    """Uses that the classifier made of the reported patients, one sentence each."""
    patients = content["dataset"]["patients"]
    roles = content["roles"]
    lines = [
        f"{ROLES.get(role, f'{role}:')} {count:,} of the {patients:,} patients reported here"
        for role, count in (roles or {}).items()
        if count
    ]
    chosen = content["operating_points"]["chosen"]
    if chosen.get("same_images") and not any((roles or {}).get(role) for role in ("calibration", "thresholds")):
        lines.append("its calibration and thresholds were chosen on these same images")
    if lines:
        told = [
            f"The figures flatter this classifier: {'; '.join(lines)}. Figures of patients who chose nothing are fair."
        ]
    elif roles:
        told = [f"None of these patients was used for {', '.join(roles)}, as the classifier's file tells."]
    else:
        told = ["Whether the classifier was trained or tuned on these patients is not known."]
    unknown = [role for role in content["unknown_roles"] if role not in (roles or {})]
    if unknown and roles:
        told.append(f"Its file does not say which patients were used for: {', '.join(unknown)}.")
    return told
