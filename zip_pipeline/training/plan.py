"""What a training run will take, before anything is spent."""

import json
import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zip_pipeline.chat_models import load_tokenizer, prepare_environment
from zip_pipeline.errors import UserError
from zip_pipeline.training.backend import BatchPlan, batch_plan
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.job import Job
from zip_pipeline.training.presets import Architecture, Preset, apply_template, preset_from
from zip_pipeline.training.rows import (
    AnswerWeights,
    RowCounts,
    answer_rows,
    answer_weights,
    conversation_rows,
    interleave,
    read_subset,
)

DEVICE_FLOPS = 989e12
UTILISATION = 0.4
DEVICE_MEMORY_GIB = 80.0
CARDS = {
    "L4, RTX 4090": 24.0,
    "A100 40 GB": 40.0,
    "L40S": 48.0,
    "A100 80 GB, H100": DEVICE_MEMORY_GIB,
    "H200": 141.0,
}
"""Memory of usual cards in GiB. Source: NVIDIA's data sheets."""
# The rest is for CUDA itself, for gaps between blocks, and for what the estimate leaves out.
USABLE_SHARE = 0.9
_MAX_DEVICES = 64
# Bytes of activations per token, layer and hidden unit in 16 bits, with fused attention.
_ACTIVATION_BYTES = 34
# Forward and backward cost 2 and 4 FLOPs per parameter and token. KTO adds a forward pass for
# the KL term and two of the reference model.
_FLOPS = {"sft": 6, "preference": 12}


@dataclass(frozen=True, kw_only=True)
class WayToFit:
    """A change with which a run fits the memory of its devices."""

    overrides: dict[str, Any]
    """settings to replace, as ``overrides`` of a training takes them"""
    num_devices: int
    memory_gib: float
    """estimated peak per device"""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Steps, tokens, memory and time of a run."""

    stage: str
    num_parameters: int
    rows: RowCounts
    batch: BatchPlan
    num_packs: int
    """rows after packing; the number of rows where they are not packed"""
    steps_per_epoch: int
    num_steps: int
    num_tokens: int
    """tokens over all epochs"""
    num_padding_tokens: int
    """tokens of padding over all epochs, on top"""
    memory_gib: float
    """estimated peak per device"""
    device_memory_gib: float
    fits: bool
    """whether the peak is within the share of a device's memory that can be used"""
    fits_on: list[str]
    """of :data:`CARDS`"""
    ways_to_fit: list[WayToFit]
    """where it does not fit"""
    hours: float
    """estimated for the devices and the utilisation below"""
    device_flops: float
    utilisation: float
    tokens_are_estimated: bool
    """whether the model's own tokenizer was not at hand"""
    answers: AnswerWeights | None = None
    """of the preference stage"""


def training_plan(
    job: Job,
    *,
    device_flops: float = DEVICE_FLOPS,
    utilisation: float = UTILISATION,
    device_memory_gib: float = DEVICE_MEMORY_GIB,
) -> TrainingPlan:
    """Return what training the job would take; no model is loaded and no hub is asked.

    Memory is a rough figure; hours are FLOPs over what the devices are reckoned to deliver.

    Args:
        job: what would be trained; a preference job needs no SFT model yet.
        device_flops: peak of one device in the precision of computing, FLOP per second; by
            default that of an H100 or H200 in bfloat16.
        utilisation: share of the peak that is reached, above 0 and up to 1.
        device_memory_gib: memory of one device; by default that of an H100.

    Raises:
        UserError: the subset cannot be read, the batch cannot be split over the devices, or
            nothing is known of the model's size.
    """
    if not 0 < utilisation <= 1 or min(device_flops, device_memory_gib) <= 0:
        raise UserError(
            f"utilisation is {utilisation}, device_flops {device_flops} and device_memory_gib "
            f"{device_memory_gib}; allowed are above 0 to 1, above 0 and above 0"
        )
    prepare_environment(offline=False)
    preset, is_sft = job.preset, job.stage == "sft"
    shape = architecture(preset)
    stage = preset.sft if is_sft else preset.kto
    batch = batch_plan(preset.batch(stage), job.num_devices, 1 if is_sft else 2)
    counts, lengths, estimated, answers = _row_lengths(job, batch)
    is_packed = is_sft and preset.packing
    num_packs = num_bins(lengths, preset.max_length) if is_packed else len(lengths)
    padding = 0 if is_packed else num_padding_tokens(lengths, batch.per_device) * stage.epochs
    steps = -(-num_packs // batch.effective)
    num_tokens = counts.num_tokens * stage.epochs
    flops = flops_per_token(shape, preset, job.stage) * (num_tokens + padding)
    seconds = flops / (device_flops * utilisation * job.num_devices)
    memory_gib = memory_bytes(shape, preset, batch, job.stage) / 2**30
    fits = memory_gib <= USABLE_SHARE * device_memory_gib
    return TrainingPlan(
        stage=job.stage,
        num_parameters=shape.num_parameters,
        rows=counts,
        batch=batch,
        num_packs=num_packs,
        steps_per_epoch=steps,
        num_steps=steps * stage.epochs,
        num_tokens=num_tokens,
        num_padding_tokens=padding,
        memory_gib=memory_gib,
        device_memory_gib=device_memory_gib,
        fits=fits,
        fits_on=[name for name, gib in CARDS.items() if memory_gib <= USABLE_SHARE * gib],
        ways_to_fit=[] if fits else ways_to_fit(job, shape, device_memory_gib),
        hours=seconds / 3600,
        device_flops=device_flops,
        utilisation=utilisation,
        tokens_are_estimated=estimated,
        answers=answers,
    )


def ways_to_fit(job: Job, shape: Architecture, device_memory_gib: float) -> list[WayToFit]:
    """Return how the run would fit its devices: adapters, or weights spread over more devices.

    Each is one change, with recomputed activations where it does not do alone, which may do by
    themselves; more devices are as few as do, to 64. Without any it takes other devices.
    """
    preset, num = job.preset, job.num_devices
    numbers = [num * 2**power for power in range(_MAX_DEVICES.bit_length())]
    fewest = num + 1 if preset.sharding else 2
    same: list[tuple[dict[str, Any], int]] = [({}, num)]
    adapters = [] if preset.lora or preset.sharding else [({"lora": {"rank": 16}}, num)]
    sharded = [({"sharding": True}, n) for n in numbers if fewest <= n <= _MAX_DEVICES]
    kinds = [same, adapters, [] if preset.lora else sharded]
    found = (_first_that_fits(job, shape, device_memory_gib, kind) for kind in kinds)
    return [way for way in found if way is not None]


def _first_that_fits(
    job: Job,
    shape: Architecture,
    device_memory_gib: float,
    changes: Sequence[tuple[dict[str, Any], int]],
) -> WayToFit | None:
    recomputed = [] if job.preset.gradient_checkpointing else [{"gradient_checkpointing": True}]
    for more in ({}, *recomputed):
        for change, num_devices in changes:
            overrides = {**change, **more}
            preset = preset_from({"name": job.preset.name, **job.preset.settings()}, overrides)
            is_sft = job.stage == "sft"
            sizes = preset.batch(preset.sft if is_sft else preset.kto)
            try:
                batch = batch_plan(sizes, num_devices, 1 if is_sft else 2)
            except UserError:  # so many devices cannot share the batch
                continue
            gib = memory_bytes(shape, preset, batch, job.stage) / 2**30
            if gib <= USABLE_SHARE * device_memory_gib:
                return WayToFit(overrides=overrides, num_devices=num_devices, memory_gib=gib)
    return None


def architecture(preset: Preset) -> Architecture:
    """Return the size of the preset's model: from its folder, or as the preset states it.

    Raises:
        UserError: neither is there.
    """
    config = Path(preset.source) / "config.json"
    if config.is_file():
        return llama_size(json.loads(config.read_text(encoding="utf-8")))
    if preset.architecture is not None:
        return preset.architecture
    raise UserError(
        f"preset: nothing is known of the size of {preset.model}. Give a local folder as the "
        "model, or add a section [architecture] to the preset"
    )


def llama_size(config: dict[str, Any]) -> Architecture:
    """Return the size of a model of the Llama kind (Mistral too) from its configuration."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, vocabulary = config["num_attention_heads"], config["vocab_size"]
    head_size = config.get("head_dim") or hidden // heads
    key_values = config.get("num_key_value_heads") or heads
    attention = 2 * hidden * head_size * (heads + key_values)
    layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return Architecture(
        num_parameters=layers * layer + embeddings + hidden,
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        vocabulary_size=vocabulary,
    )


def _row_lengths(
    job: Job, batch: BatchPlan
) -> tuple[RowCounts, list[int], bool, AnswerWeights | None]:
    """Return counts, row lengths in the order of training, whether they are estimated, weights."""
    preset, subset = job.preset, read_subset(job.subset, job.stage)
    estimated = False
    try:
        tokenizer = load_tokenizer(preset.source, preset.revision, local_only=True)
    except UserError:
        # Its tokens are shorter than a large model's: an estimate on the high side.
        tokenizer, estimated = tiny_tokenizer(), True
    else:
        apply_template(tokenizer, preset.template)
    if job.stage == "sft":
        rows = conversation_rows(subset, "sft", tokenizer, preset.max_length)
        lengths = [len(ids) for ids in rows.input_ids]
        order = random.Random(preset.seed).sample(lengths, len(lengths))
        return rows.counts, order, estimated, None
    answers = answer_rows(subset, tokenizer, preset.max_length)
    labels = [row.desirable for row in answers.rows]
    order = interleave(labels, batch.per_device, preset.seed)
    lengths = [min(answers.rows[place].num_tokens, preset.max_length) for place in order]
    return answers.counts, lengths, estimated, answer_weights(labels)


def num_bins(lengths: Sequence[int], capacity: int) -> int:
    """Return how many packs best-fit decreasing fills with rows of these lengths."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        place = bisect_left(spaces, length)
        space = spaces.pop(place) if place < len(spaces) else capacity
        insort(spaces, space - length)
    return len(spaces)


def num_padding_tokens(lengths: Sequence[int], window: int) -> int:
    """Return the padding of consecutive windows, each padded to its longest row."""
    windows = [lengths[start : start + window] for start in range(0, len(lengths), window)]
    return sum(max(rows) * len(rows) - sum(rows) for rows in windows)


def flops_per_token(shape: Architecture, preset: Preset, stage: str) -> float:
    """Return FLOPs per token: matrix products, attention at full length, recomputation."""
    attention = 2 * shape.num_layers * shape.hidden_size * preset.max_length
    per_pass = shape.num_parameters + attention / 2
    recomputed = 2 if preset.gradient_checkpointing else 0
    return (_FLOPS[stage] + recomputed) * per_pass


def memory_bytes(shape: Architecture, preset: Preset, batch: BatchPlan, stage: str) -> float:
    """Return the estimated peak memory of one device.

    Weights and gradients in the type of the weights, two moments of Adam in the same type (none
    for the frozen weights under LoRA), the 16-bit copies of 32-bit weights that autocast keeps
    during a forward pass, KTO's reference model, and the activations of one micro-batch at full
    length.
    """
    weight_bytes, cast_bytes = (2, 0) if preset.weights == "bfloat16" else (4, 2)
    copies = 1 if preset.lora else 5 if stage == "preference" else 4
    sharing = batch.num_devices if preset.sharding else 1
    state = shape.num_parameters * (weight_bytes * copies + cast_bytes) / sharing
    width = batch.per_device * preset.max_length * shape.hidden_size
    if preset.gradient_checkpointing:
        return state + width * (_ACTIVATION_BYTES + 2 * shape.num_layers)
    return state + width * _ACTIVATION_BYTES * shape.num_layers
