"""The small base model."""

import json
from dataclasses import replace
from pathlib import Path

from zip_pipeline.chat_models import model_identity
from zip_pipeline.training.base_model import BaseModelSettings, base_model, base_model_hash
from zip_pipeline_tests.training.conftest import SMALLEST


def test_the_shipped_shape_is_small() -> None:
    """The base model has at most three million parameters."""
    from zip_pipeline.training.plan import architecture
    from zip_pipeline.training.presets import load_preset

    assert architecture(load_preset("tiny")).num_parameters == 614_880


def test_the_base_model_is_made_once(cache: Path, small_base: Path) -> None:
    """A second call finds the folder, which holds safetensors and no pickles."""
    changed = (small_base / "model.safetensors").stat().st_mtime_ns
    assert base_model(cache, SMALLEST) == small_base
    assert (small_base / "model.safetensors").stat().st_mtime_ns == changed
    assert small_base.name == base_model_hash(SMALLEST)
    assert {p.suffix for p in small_base.iterdir()} == {".safetensors", ".json", ".jinja"}
    assert not list(small_base.parent.glob(".tmp-*"))


def test_the_base_model_is_reproducible(tmp_path: Path, small_base: Path) -> None:
    """Made anew from the same settings, it has the same weights; another seed has others."""
    settings = replace(SMALLEST, num_tokens=2048)
    first, second = (base_model(tmp_path / name, settings) for name in "ab")
    other = base_model(tmp_path / "a", replace(settings, seed=1))
    assert model_identity(str(first), None) == model_identity(str(second), None)
    assert model_identity(str(first), None) != model_identity(str(other), None)
    assert first.name == second.name != other.name


def test_pre_training_teaches_something(small_base: Path) -> None:
    """The loss falls clearly below that of guessing among 4,096 tokens (8.3)."""
    made = json.loads((small_base / "pretraining.json").read_text())
    assert made["final_loss"] < 7.6
    assert made["num_steps"] == 25_000 // 256 // BaseModelSettings().blocks_per_step
