"""A base model small enough to train in seconds, and subsets to train it on."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.samples import (
    AnySample,
    PreferencePair,
    Sample,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline.training.base_model import BaseModelSettings, make_base_model
from zip_pipeline.training.job import Job, job_from

prepare_environment(offline=True)

SMALLEST = BaseModelSettings(
    hidden_size=32, intermediate_size=64, num_layers=1, num_heads=2, num_tokens=25_000
)
OVERRIDES = {
    "max_length": 96,
    "batch_size": 4,
    "per_device_batch_size": 2,
    "checkpoint_steps": 2,
    "probe.steps": 5,
    "probe.warmup_steps": 1,
    "kto.batch_size": 8,
    "kto.per_device_batch_size": 4,
}


def subset_of(samples: Sequence[AnySample], path: Path) -> Path:
    """Write samples as a subset file."""
    stage = "sft" if isinstance(samples[0], Sample) else "preference"
    rows = [
        {"sample_id": sample_id(s), "source": f"s{place % 3}", **sample_columns(s)}
        for place, s in enumerate(samples)
    ]
    frame_of(stage, rows).write_parquet(path)
    return path


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the smallest base model."""
    folder = tmp_path_factory.mktemp("base")
    make_base_model(folder, SMALLEST)
    return folder


@pytest.fixture(scope="session")
def tasks() -> list[Any]:
    """Return tasks of the generator."""
    from random import Random

    from zip_pipeline.sample_data.mixture import draw_tasks

    weights = {"arithmetic": 2, "dates": 1, "units": 1}
    return list(islice(draw_tasks(Random(1), weights), 60))


@pytest.fixture(scope="session")
def sft_subset(tmp_path_factory: pytest.TempPathFactory, tasks: list[Any]) -> Path:
    """Return a subset of 60 conversations."""
    return subset_of([t.sample() for t in tasks], tmp_path_factory.mktemp("sft") / "subset.parquet")


@pytest.fixture(scope="session")
def pairs_subset(tmp_path_factory: pytest.TempPathFactory, tasks: list[Any]) -> Path:
    """Return a subset of 24 preference pairs."""
    from zip_pipeline.samples import Turn

    pairs = [
        PreferencePair(
            t.prompt_turns(), (Turn("assistant", t.answer),), (Turn("assistant", t.wrong),)
        )
        for t in tasks[:24]
    ]
    return subset_of(pairs, tmp_path_factory.mktemp("pairs") / "subset.parquet")


@pytest.fixture
def job(tmp_path: Path, small_base: Path, sft_subset: Path) -> Callable[..., Job]:
    """Return a maker of jobs; settings given by name replace the test's own."""

    def make(stage: str = "sft", subset: Path = sft_subset, **settings: Any) -> Job:
        fields = {
            name: settings.pop(name)
            for name in ("output", "num_devices", "sft_model")
            if name in settings
        }
        overrides = {"model": str(small_base), **OVERRIDES, **settings}
        return job_from(
            {
                "stage": stage,
                "subset": str(subset),
                "output": str(tmp_path / "out"),
                "preset": "tiny",
                "overrides": overrides,
                **fields,
            }
        )

    return make


def job_values(job: Job) -> dict[str, Any]:
    """Return a job as the plain values of its file."""
    return {
        "stage": job.stage,
        "subset": str(job.subset),
        "output": str(job.output),
        "preset": {"name": job.preset.name, **job.preset.settings()},
        "num_devices": job.num_devices,
        "sft_model": str(job.sft_model) if job.sft_model else None,
    }


def read_metrics(output: Path) -> pl.DataFrame:
    """Return the lines of metrics.jsonl."""
    return pl.read_ndjson(output / "metrics.jsonl", infer_schema_length=None)
