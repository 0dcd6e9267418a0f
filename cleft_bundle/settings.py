"""The values at the top of the configs: type and range of each, and what must agree, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cleft_bundle.errors import BundleError

#: Ids further down in a config that mean the same as one at its top.
SAME = {
    "train#trainer#max_epochs": "epochs",
    "train#trainer#max_steps": "max_steps",
    "train#trainer#accumulation_steps": "accumulation_steps",
    "train#dataloader#batch_size": "batch_size",
    "train#dataloader#num_workers": "num_workers",
    "validate#dataloader#batch_size": "batch_size",
}

#: Ids of before 0.9.0, and where what they were for is found now.
FORMER = {
    "train#checkpoint": "train#record",
    "train#dataloader#collate_fn": "train#dataloader#tokenize and #captioned",
    "train#dataloader#sampler": "train#dataloader#seed",
    "train#loss_curve": "train#record",
    "train#pictures": "train#record",
    "train#rank_allocation": "train#record",
    "train#sampler": "train#dataloader#seed",
    "validate#dataloader#collate_fn": "validate#dataloader#tokenize and #items",
    "validation_dataset": "validation_dataloader",
}

#: Components of before 0.9.0 whose name means another thing now, and what they are called.
RENAMED = {"comparison": "label_efficiency"}


def _device(value: str) -> str:
    """Refuse what is no device, or none of this machine."""
    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise ValueError(value) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(value)
    return value


Count = Annotated[int, Field(description="a whole number, 1 or more", ge=1)]
Whole = Annotated[int, Field(description="a whole number, 0 or more", ge=0)]
Seed = Annotated[int, Field(description="a whole number from 0 to 4294967295", ge=0, le=2**32 - 1)]
Rate = Annotated[float, Field(description="a number above 0", gt=0)]
FromZero = Annotated[float, Field(description="a number, 0 or more", ge=0)]
Share = Annotated[float, Field(description="a number above 0 and at most 1", gt=0, le=1)]
Part = Annotated[float, Field(description="a number from 0 to below 1", ge=0, lt=1)]
Inside = Annotated[float, Field(description="a number above 0 and below 1", gt=0, lt=1)]
UpToOne = Annotated[float, Field(description="a number from 0 to 1", ge=0, le=1)]
Number = Annotated[float, Field(description="a number")]
Switch = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a text (a number as a text in two kinds of quotes: \"'2024'\")")]
Findings = Annotated[str | list[str], Field(description="called, all, a class or a list of classes")]
Names = Annotated[
    list[str] | tuple[str, ...] | str, Field(description="a name, or a list of names such as \"['first','second']\"")
]
Device = Annotated[
    str, AfterValidator(_device), Field(description="cpu, or cuda or cuda:N with a GPU that this machine has")
]


class Settings(BaseModel):
    """Top-level values of all configs, by id; those that a config leaves to an expression are absent."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")

    # where things are, and what they are called
    bundle_root: Text = ""
    output_dir: Text = ""
    models_dir: Text = ""
    trained_path: Text = ""
    best_checkpoint: Text = ""
    training_checkpoint: Text = ""
    checkpoint: Text | None = None
    pretrained: Text = ""
    model_path: Text = ""
    served_model: Text = ""
    dual_encoder_path: Text = ""
    text_form: Text = ""
    text_source: Text | None = None
    datalist_file: Text | None = None
    label_table: Text | None = None
    prompt_file: Text | None = None
    cache: Annotated[
        Literal["auto", "memory", "store", "files", "none"], Field(description="auto, memory, store, files or none")
    ] = "auto"
    cache_dir: Text | None = None
    dataset_name: Text = ""
    dataset_dir: Text | None = None
    tracking_uri: Text | None = None
    experiment_name: Text = ""
    run_name: Text = ""
    report_path: Text = ""
    evaluated_as: Text = ""
    tokenizer_source: Text = ""
    dual_encoder: Text | dict[str, Any] = ""
    # what is computed on, and how often something is written
    device: Device = "cpu"
    seed: Seed = 0
    split_seed: Seed = 0
    subset_seed: Seed = 0
    phantom_seed: Seed = 0
    num_workers: Whole = 0
    num_threads: Count | None = None
    checkpoint_interval: Whole = 0
    checkpoint_every_minutes: Rate | None = None
    cache_rate: UpToOne = 0.0
    resume: Annotated[bool | str, Field(description="true, false or auto")] = False
    # data
    phantom_patients: Count = 1
    train_fraction: Share = 1.0
    test_fraction: Part = 0.0
    balanced_test: Count | None = None
    target: Text = ""
    uncertain: Text = ""
    labeller: Text = ""
    readers: Text = ""
    sentence_captions: Whole = 0
    unknown_codes: Text = ""
    shared_patients: Text = ""
    shared_pictures: Text = ""
    absent_images: Text = ""
    exclude: Names | None = None
    image_types: Names = ()
    caption_template: Text = ""
    frontal_only: Switch = False
    spot_views: Switch = False
    headers: Switch = False
    image_size: Count = 1
    resized_to: Count = 1
    image_mean: Number = 0.0
    image_std: Rate = 1.0
    pixel_spacing: Rate | None = None
    spacing_fallback: Rate | None = None
    max_caption_tokens: Count = 1
    # training
    task: Text = ""
    epochs: Count = 1
    max_steps: Count | None = None
    val_interval: Count = 1
    val_every_steps: Count | None = None
    min_epochs: Count = 1
    min_steps: Whole = 0
    batch_size: Count = 1
    sampling: Annotated[Literal["natural", "balanced"], Field(description="natural or balanced")] = "natural"
    chunk_size: Count | None = None
    accumulation_steps: Count = 1
    learning_rate: Rate = 1.0
    backbone_learning_rate: FromZero = 0.0
    final_learning_rate: FromZero = 0.0
    layer_decay: Share = 1.0
    weight_decay: FromZero = 0.0
    momentum: Part = 0.0
    warmup_steps: Whole = 0
    max_grad_norm: Rate | None = None
    autocast: Text | None = None
    compile: Switch = False
    profile: Switch = False
    positives: Text = ""
    gather: Switch = True
    image_peft: Text = ""
    strategy: Text = ""
    timeout_minutes: Rate = 30.0
    embedding_dim: Count = 1
    pooling: Text = ""
    text_pooling: Text = ""
    text_dtype: Text = ""
    text_checkpointing: Switch = False
    peft: Text | dict[str, Any] = ""
    objective: Text = ""
    context: Text = ""
    context_words: Text = ""
    context_length: Count = 1
    source: Text = ""
    true_source: Text = ""
    # evaluation and inference
    calibration: Text = ""
    threshold_rule: Text = ""
    vocabulary: Switch = True
    threshold_target: Share = 1.0
    evaluate_split: Text = ""
    allow_trained_patients: Switch = False
    allow_chosen_patients: Switch = False
    remember_patients: Switch = True
    resamples: Count = 1
    confidence: Inside = 0.95
    prevalence: Inside | None = None
    report_cases: Whole = 0
    shift_images: Whole = 0
    about_file: Text | None = None
    unit_score: Annotated[Literal["max", "mean"], Field(description="max or mean")] = "max"
    report_samples: Whole = 0
    structured_reports: Switch = False
    heat_maps: Switch = False
    heat_map_findings: Findings = ""
    heat_map_scale: Rate | None = None
    secondary_captures: Switch = False

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        given = self.model_fields_set
        if {"learning_rate", "final_learning_rate"} <= given and self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate: expected at most learning_rate, {self.learning_rate}, "
                f"got {self.final_learning_rate}"
            )
        if self.max_steps is not None and "warmup_steps" in given and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps: expected fewer than max_steps, {self.max_steps}, got {self.warmup_steps}: "
                "the rate would only climb"
            )
        return self


def check_settings(values: Mapping[str, Any]) -> None:
    """Refuse a value of the wrong type, out of its range, or at odds with another.

    Args:
        values: top-level values of a config by id, and those of :data:`SAME`; ids that are none of these are let pass.

    Raises:
        BundleError: names the id, what is expected and what was given.
    """
    for key, value in values.items():
        _validate({SAME.get(key, key): value}, key)
    _validate(values, "")


def _validate(values: Mapping[str, Any], key: str) -> None:
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of what must agree
            raise BundleError(str(first["ctx"]["error"])) from None
        field = str(first["loc"][0])
        expected = _description(field)
        raise BundleError(f"{key or field}: expected {expected}, got {values[field]!r}") from None


def _description(field: str) -> str:
    """What is expected of a field, with null where that is allowed."""
    info = Settings.model_fields[field]
    schema = Settings.model_json_schema()["properties"][field]
    branches = [schema, *schema.get("anyOf", [])]
    described = next(branch["description"] for branch in branches if "description" in branch)
    return f"{described}, or null" if info.default is None else described
