"""Cost of CLEFT's training step, next to the way in which the authors' release computes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cleft_bundle.data import CaptionCollate, CaptionTokenizer
from cleft_bundle.engines import adamw
from cleft_bundle.engines.precision import compile_towers
from cleft_bundle.errors import BundleError
from cleft_bundle.losses import ContrastiveLoss
from cleft_bundle.networks import CLEFT, ImageEncoder, Lora, TextEncoder

WINDOW = 64
TEMPLATE = "this is a chest x ray of a patient with "
STUDIES = 187_641
# Irvin et al., "CheXpert", AAAI 2019, table 1: in how many of the studies each finding is positive
POSITIVE = {
    "enlarged cardiomediastinum": 9_020,
    "cardiomegaly": 23_002,
    "lung opacity": 92_669,
    "lung lesion": 6_856,
    "edema": 48_905,
    "consolidation": 12_730,
    "pneumonia": 4_576,
    "atelectasis": 29_333,
    "pneumothorax": 17_313,
    "pleural effusion": 75_696,
    "pleural other": 2_441,
    "fracture": 7_270,
    "support devices": 105_831,
}
VIT = {
    "model_type": "dinov2_with_registers",
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 3,
    "num_register_tokens": 4,
    "patch_size": 14,
    "image_size": 224,
}
GPT2 = {
    **{"model_type": "gpt2", "vocab_size": 28_896, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
    **{"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0},
}
SMALL_VIT = {"hidden_size": 24, "num_hidden_layers": 1, "image_size": 28}
SMALL_GPT2 = {"vocab_size": 768, "n_embd": 24, "n_layer": 1}


@dataclass(frozen=True)
class Way:
    """One way to take the training step, and what it does about each thing that costs time."""

    name: str
    anomaly: bool = False  # autograd's anomaly detection is on
    maps: bool = False  # the language model returns its attention maps, which only eager attention has
    window: bool = False  # captions are padded to the whole window
    fold: bool = True  # the language model meets equal captions once
    share: bool = True  # what captions have in common at their beginning runs once, and there is no padding


OURS = Way("common beginnings shared (ours)")
FOLDED = replace(OURS, name="equal captions folded", share=False)
LONGEST = replace(FOLDED, name="padded to the longest", fold=False)
NO_MAPS = replace(LONGEST, name="no attention maps (SDPA)", window=True)
NO_ANOMALY = replace(NO_MAPS, name="release, anomaly detection off", maps=True)
RELEASE = replace(NO_ANOMALY, name="release, anomaly detection on", anomaly=True)
COMPILED = "compiled towers (ours)"
WAYS = (RELEASE, NO_ANOMALY, NO_MAPS, LONGEST, FOLDED, OURS)


class Step:
    """Forward, backward and AdamW step of the whole network on one batch, in any of the ways and on the same weights.

    The learning rate is 0: the optimizer does all its work, and every repetition finds the weights as the first did.

    Args:
        items: ``image``, ``caption``, ``label`` and ``name`` of each image.
        vit: config of the image backbone.
        gpt2: config of the language model.
        compiled: the blocks of both towers are compiled, as by ``--compile true``.
    """

    def __init__(
        self, items: list[dict[str, Any]], vit: dict[str, Any], gpt2: dict[str, Any], compiled: bool = False
    ) -> None:
        image_encoder = ImageEncoder(vit)
        packed, plain = (TextEncoder(gpt2, peft=Lora(dropout=0.0), row_tokens=row) for row in (512, None))
        for name, parameter in packed.named_parameters():
            if "lora_B" in name:  # starts at zero, which would hide what becomes of lora_A
                torch.nn.init.normal_(parameter, std=0.02)
        plain.backbone, plain.projection = packed.backbone, packed.projection
        self.network, self._plain = CLEFT(image_encoder, packed).train(), CLEFT(image_encoder, plain).train()
        self._plain.logit_scale = self.network.logit_scale
        if compiled:
            compile_towers(self.network)
        self.optimizer = adamw(self.network, 0.0, 0.0, weight_decay=0.1)
        self.loss = ContrastiveLoss()
        self.tokenize = CaptionTokenizer(_tokenizer(), WINDOW)
        self.captions = [item["caption"] for item in items]
        self.batch = CaptionCollate(self.tokenize)(items)

    def __call__(self, way: Way) -> float:
        """Take a step and return its loss."""
        network = self.network if way.share else self._plain
        text = self._text(way)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autograd.set_detect_anomaly(True) if way.anomaly else nullcontext():
            loss = self.loss(network(self.batch["image"], **text), self.batch["caption_id"])
            loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def vision(self) -> None:
        """Forward and backward of the image tower alone, which is the same in all ways."""
        self.optimizer.zero_grad(set_to_none=True)
        self.network.encode_image(self.batch["image"]).sum().backward()

    def set_attention(self, maps: bool) -> None:
        """Return attention maps, as the release has it, or do not."""
        model = self.network.text_encoder.language_model
        if maps:  # eager first, for only that has maps, and SDPA last
            model.set_attn_implementation("eager")
        model.config.output_attentions = maps
        if not maps:
            model.set_attn_implementation("sdpa")

    def gradients(self) -> dict[str, torch.Tensor]:
        """Copies of the gradients that the last step left, by parameter."""
        return {name: p.grad.clone() for name, p in self.network.named_parameters() if p.grad is not None}

    def tokens(self, way: Way) -> tuple[tuple[int, int], float]:
        """Take a step; return rows and columns of tokens that ran through the language model, and the loss."""
        shapes: list[tuple[int, int]] = []
        model = self.network.text_encoder.language_model
        hook = model.h[0].register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
        loss = self(way)
        hook.remove()
        return shapes[0], loss

    def _text(self, way: Way) -> dict[str, torch.Tensor]:
        if way.fold:
            return {key: self.batch[key] for key in ("input_ids", "attention_mask", "caption_index")}
        text = self.tokenize(self.captions)
        if way.window:
            missing = WINDOW - text["input_ids"].shape[1]
            eos = int(self.tokenize.tokenizer.eos_token_id)
            text = {
                "input_ids": torch.nn.functional.pad(text["input_ids"], (0, missing), value=eos),
                "attention_mask": torch.nn.functional.pad(text["attention_mask"], (0, missing)),
            }
        return text


def training(
    repeats: int = 3,
    batch_size: int = 72,
    distinct: int = 44,
    table: str | None = None,
    seed: int = 0,
    small: bool = False,
    compiled: bool = False,
    ours_alone: bool = False,
    out: str | None = None,
) -> None:
    """Compare our training step with the release's, on the same weights and data, one measure after another.

    Args:
        repeats: how often each way is timed; the ways take turns.
        batch_size: number of images.
        distinct: number of distinct captions among theirs.
        table: CheXpert's train.csv to draw captions from. Default: that of torchxrayvision where it is installed,
            else captions whose findings are drawn independently at CheXpert's published frequencies.
        seed: of images, captions and weights.
        small: tiny networks and batch, to see that it runs.
        compiled: take our step with compiled towers too.
        ours_alone: leave the release's ways out, for a comparison with the image tower alone.
        out: file to write the table to as well.
    """
    torch.manual_seed(seed)
    side = 28 if small else 224
    batch_size, distinct = (12, 9) if small else (batch_size, distinct)
    draw, source = _caption_source(table)
    captions, mean = draw_batch(draw, batch_size, distinct, seed)
    items = [
        {"image": torch.randn(3, side, side), "caption": caption, "label": [0.0], "name": str(number)}
        for number, caption in enumerate(captions)
    ]
    sizes_of = VIT | (SMALL_VIT if small else {}), GPT2 | (SMALL_GPT2 if small else {})
    step, fast = Step(items, *sizes_of), Step(items, *sizes_of, compiled=True) if compiled else None
    if fast is not None:
        fast.network.load_state_dict(step.network.state_dict())
        difference = abs(fast(OURS) - step(OURS))
        if difference > 1e-4:
            raise BundleError(f"compiled: the loss differs by {difference}: these are not the same training step")
    if ours_alone:
        report = _beside_the_tower(_take_turns(step, repeats, (OURS,), fast))
        print(report)
        if out:
            Path(out).write_text(report + "\n")
        return
    rows = _agreement(step)
    seconds = _take_turns(step, repeats, WAYS, fast)
    vision = median(seconds["vision"])
    sizes = "tiny networks" if small else "ViT 192 x 6 at 224 px, GPT-2 768 x 12 (vocabulary 28,896), LoRA r=8"
    lines = [
        f"{sizes}; batch {batch_size} with {distinct} distinct captions ({source}; {mean:.1f} distinct in the mean "
        "batch), every word of a caption one token; one step is forward, backward and AdamW of the whole network, "
        f"float32; {torch.get_num_threads()} threads; median of {repeats}.",
        "",
        "| way | LM tokens | seconds | gain on the row above | times faster than release | than release, anomaly "
        "detection off | loss | largest gradient difference |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    medians = [median(seconds[way.name]) for way in WAYS]
    for number, (way, own) in enumerate(zip(WAYS, medians, strict=True)):
        gain = f"{medians[number - 1] / own:.2f}" if number else ""
        (height, width), loss, difference = rows[way.name]
        lines.append(
            f"| {way.name} | {height} x {width} | {own:.3f} | {gain} | {medians[0] / own:.2f} | "
            f"{medians[1] / own:.2f} | {loss:.6f} | {difference:.1e} |"
        )
    lines.append(f"| image tower alone, forward and backward | | {vision:.3f} | | | | | |")
    lines += ["", _beside_the_tower(seconds)]
    report = "\n".join(lines)
    print(report)
    if out:
        Path(out).write_text(report + "\n")


def draw_batch(
    draw: Callable[[np.random.Generator, int], list[str]], batch_size: int, distinct: int, seed: int, draws: int = 1000
) -> tuple[list[str], float]:
    """Draw batches of captions until one has as many distinct ones as asked for.

    Returns:
        that batch, and the mean number of distinct captions over all ``draws`` batches.

    Raises:
        BundleError: where no batch has this number.
    """
    random = np.random.default_rng(seed)
    batches = [draw(random, batch_size) for _ in range(draws)]
    numbers = [len(set(batch)) for batch in batches]
    if distinct not in numbers:
        raise BundleError(
            f"distinct: no batch of {batch_size} has {distinct} distinct captions; {draws} had {min(numbers)} to "
            f"{max(numbers)}"
        )
    return batches[numbers.index(distinct)], fmean(numbers)


def _caption_source(table: str | None) -> tuple[Callable[[np.random.Generator, int], list[str]], str]:
    """What draws captions, and what to call it."""
    if table is None and (installed := find_spec("torchxrayvision")) is not None:
        table = str(Path(str(installed.origin)).parent / "data" / "chexpert_train.csv.gz")
    if table is None:
        return _independent, "findings drawn independently at CheXpert's published frequencies"
    if not Path(table).is_file():
        raise BundleError(f"table: there is no file {table!r}")
    frame = pd.read_csv(table)
    names = {column.lower(): column for column in frame.columns}
    findings = [*POSITIVE, "no finding"]
    present = (frame[[names[finding] for finding in findings]] == 1).to_numpy()
    present = present[present.any(axis=1)]  # an image of which nothing is known to be there has no caption

    def real(random: np.random.Generator, number: int) -> list[str]:
        rows = present[random.integers(len(present), size=number)]
        return [TEMPLATE + ", ".join(np.array(findings)[row]) for row in rows]

    return real, "rows of CheXpert's label table"


def _independent(random: np.random.Generator, number: int) -> list[str]:
    findings = np.array(list(POSITIVE))
    present = random.random((number, len(findings))) < np.array(list(POSITIVE.values())) / STUDIES
    named = [list(findings[row]) for row in present]
    # "no finding" says nothing about devices
    return [
        TEMPLATE + ", ".join(names if set(names) - {"support devices"} else [*names, "no finding"]) for names in named
    ]


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows the words of the findings, as one of a biomedical language model by and large does.

    That of the embedded default knows its own eight classes only and would spell the others out.
    """
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [TEMPLATE + ", ".join([*POSITIVE, "no finding"]), *(TEMPLATE + finding for finding in POSITIVE)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(show_progress=False, special_tokens=[end], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)


def _agreement(step: Step) -> dict[str, tuple[tuple[int, int], float, float]]:
    """Of each way its tokens, its loss, and how far its gradients are from ours; it also warms everything up.

    Raises:
        BundleError: where a loss differs from ours by more than 1e-4.
    """
    ours = step(OURS)
    expected = step.gradients()
    rows = {}
    for way in WAYS:
        step.set_attention(way.maps)
        tokens, loss = step.tokens(way)
        got = step.gradients()
        if abs(loss - ours) > 1e-4 or got.keys() != expected.keys():
            raise BundleError(f"{way.name}: the loss is {loss}, ours is {ours}: these are not the same training step")
        rows[way.name] = (tokens, loss, max(float((got[key] - expected[key]).abs().max()) for key in got))
    step.set_attention(maps=False)
    return rows


def _beside_the_tower(seconds: dict[str, list[float]]) -> str:
    """How many times its image tower alone a step takes: the median over rounds, in each of which both were timed."""
    lines = []
    for name in (OURS.name, COMPILED):
        ratios = [own / tower for own, tower in zip(seconds.get(name, []), seconds["vision"], strict=False)]
        if ratios:
            spread = f"{min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds"
            lines.append(f"{name}: {median(ratios):.3f} times the (eager) image tower alone, {spread}.")
    return "\n".join(lines)


def _take_turns(step: Step, repeats: int, ways: tuple[Way, ...], fast: Step | None = None) -> dict[str, list[float]]:
    """Seconds of each way and of the image tower alone; the ways take turns, so that noise meets all alike."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways} | {"vision": []}
    for _ in range(repeats):
        if fast is not None:
            seconds.setdefault(COMPILED, []).append(_seconds(lambda: fast(OURS)))
        for way in ways:
            step.set_attention(way.maps)
            seconds[way.name].append(_seconds(lambda way=way: step(way)))
            print(f"{way.name}: {seconds[way.name][-1]:.3f} s", file=sys.stderr)
        step.set_attention(maps=False)
        seconds["vision"].append(_seconds(step.vision))
    return seconds


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
