"""The small base model and its tokenizer, as they ship and as their script makes them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from zip_pipeline.chat_models import load_model, model_identity
from zip_pipeline.compression.tokens import (
    SHIPPED_TOKENIZERS,
    TINY_MODEL,
    count_tokens,
    load_tokenizer,
)
from zip_pipeline.training.base_model import (
    SPECIAL_TOKENS,
    BaseModelSettings,
    held_out_loss,
    make_base_model,
    train_tokenizer,
)
from zip_pipeline.training.plan import architecture
from zip_pipeline.training.presets import load_preset
from zip_pipeline_tests.training.conftest import SMALLEST


def test_shipped_model_is_the_one_of_the_settings() -> None:
    """Its weights have the recorded loss on text that it has not seen, and the plan its size."""
    record = json.loads((TINY_MODEL / "pretraining.json").read_text())
    assert record["settings"] == asdict(BaseModelSettings())
    assert record["num_parameters"] == 614_880
    assert architecture(load_preset("tiny")).num_parameters == 614_880
    model = load_model(str(TINY_MODEL), None)
    assert model.num_parameters() == 614_880
    assert held_out_loss(model) == pytest.approx(record["held_out_loss"], abs=1e-3)
    assert record["held_out_loss"] == pytest.approx(0.98825, abs=1e-5)


def test_shipped_model_is_small_files_without_code() -> None:
    """No file is above 1 MB, weights are safetensors, and all of it is in the package's data."""
    files = {path.name: path.stat().st_size for path in TINY_MODEL.iterdir()}
    assert max(files.values()) < 1_000_000
    assert {Path(name).suffix for name in files} == {".safetensors", ".json"}


def test_identity_of_the_shipped_model_stays() -> None:
    """Probes of another base model cannot be compared: it changes only on purpose."""
    assert model_identity(str(TINY_MODEL), None) == "6e5e5646339d5f576690b9f68864a00f"


@pytest.mark.slow
def test_base_model_is_reproducible(tmp_path: Path) -> None:
    """Made anew from the same settings, it has the same weights; another seed has others."""
    settings = replace(SMALLEST, num_tokens=2048)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_base_model(tmp_path / name, replace(settings, seed=seed))
    first, second, other = (model_identity(str(tmp_path / name), None) for name in "abc")
    assert first == second != other


def test_pre_training_teaches_something(small_base: Path) -> None:
    """The loss falls clearly below that of guessing among 4,096 tokens (8.3)."""
    made = json.loads((small_base / "pretraining.json").read_text())
    assert made["final_loss"] < 7.6
    assert made["num_steps"] == 25_000 // 256 // BaseModelSettings().blocks_per_step


@pytest.mark.slow
def test_the_shipped_tokenizer_is_what_the_script_makes() -> None:
    """Training again gives the same file, byte for byte."""
    assert train_tokenizer() == SHIPPED_TOKENIZERS["tiny"].read_text(encoding="utf-8")


def test_the_shipped_tokenizer_encodes_any_text() -> None:
    """Byte-level: foreign scripts and noise survive; special tokens are single tokens."""
    tokenizer = load_tokenizer("tiny")
    assert tokenizer.get_vocab_size() == 4096
    for text in ("Füße 東京 🙂\n\t", "\x00\x7f", "What is 12 times 7?"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert all(tokenizer.token_to_id(token) is not None for token in SPECIAL_TOKENS)
    texts = [" ".join(turn["content"] for turn in [{"content": "Sort the list"}])] * 3
    assert count_tokens(texts) == [count_tokens([text])[0] for text in texts]
