"""Settings: values as shipped, checks, overrides."""

from pathlib import Path

import pytest

from zip_pipeline.training.presets import load_preset, preset_from, preset_names


def test_presets_are_shipped() -> None:
    """They come with the package."""
    assert preset_names() == [
        *("llama-3-8b", "mistral-7b", "smollm2-135m", "smollm2-135m-lora", "tiny")
    ]


@pytest.mark.parametrize(
    ("name", "template", "learning_rate"),
    [("mistral-7b", "vicuna", 4e-6), ("llama-3-8b", "llama-3", 1e-5)],
)
def test_paper_presets_have_the_settings_of_the_paper(
    name: str, template: str, learning_rate: float
) -> None:
    """Batch 128, 4 epochs, 2,048 tokens, packing, warm-up 0.1, and the paper's learning rates."""
    preset = load_preset(name)
    assert (preset.batch_size, preset.max_length, preset.packing) == (128, 2048, True)
    assert (preset.warmup_share, preset.template) == (0.1, template)
    assert (preset.sft.epochs, preset.sft.learning_rate) == (4, learning_rate)
    assert (preset.kto.learning_rate, preset.batch(preset.kto)[0]) == (1e-6, 128)
    assert preset.revision is not None
    assert len(preset.revision) == 40


def test_overrides_replace_single_settings_of_a_section() -> None:
    """A dotted name and a dictionary both replace what they name and nothing else."""
    preset = load_preset("tiny", {"sft.epochs": 3, "lora": {"rank": 4}, "seed": 7})
    assert (preset.sft.epochs, preset.sft.learning_rate) == (3, 1e-3)
    assert preset.lora is not None
    assert (preset.lora.rank, preset.lora.alpha, preset.seed) == (4, 32, 7)


def test_settings_come_back_from_plain_values() -> None:
    """A preset survives the way through JSON's kinds of values."""
    preset = load_preset("mistral-7b", {"lora.rank": 8})
    assert preset_from({"name": preset.name, **preset.settings()}) == preset


def test_a_file_of_the_user_is_a_preset(tmp_path: Path) -> None:
    """A TOML file is read under its own name."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'model = "tiny"\ntemplate = "tiny"\n[sft]\nepochs = 1\nlearning_rate = 1e-3\n'
        "[kto]\nepochs = 1\nlearning_rate = 1e-3\n[probe]\n"
    )
    assert load_preset(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"packng": True}, "unknown setting packng"),
        ({"sft.epoch": 1}, "unknown setting sft.epoch"),
        ({"sft.epochs": 0}, "epochs is 0; allowed is 1 or more"),
        ({"sft.learning_rate": 2.0}, "learning_rate is 2.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5; it must be of type int"),
        ({"packing": "yes"}, "packing is 'yes'; it must be of type bool"),
        ({"max_length": True}, "max_length is True; it must be of type int"),
        ({"template": "alpaca"}, "template is 'alpaca'"),
        ({"attention": "fast"}, "attention is 'fast'"),
        ({"weights": "int8"}, "weights is 'int8'"),
        ({"probe.steps": 1}, "probe.steps is 1"),
        ({"probe.warmup_steps": 99}, "probe.warmup_steps is 99"),
        ({"sft": 3}, "sft is 3; it must be a section"),
        ({"lora": {"rank": 0}}, "lora.rank is 0"),
        ({"warmup_share": 1.0}, "warmup_share is 1.0"),
        ({"sharding": True, "lora": {}}, "sharding is True; allowed is false together with lora"),
        ({"model": "owner/name"}, "revision is None; allowed is a hub commit"),
    ],
)
def test_wrong_settings_are_refused_by_name(overrides: dict[str, object], message: str) -> None:
    """An unknown setting or a value out of range is an error that names both."""
    with pytest.raises(ValueError, match=r"^preset: ") as error:
        load_preset("tiny", overrides)
    assert message in str(error.value)


def test_a_preset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A misspelled name, a missing setting and a file that is no TOML are errors."""
    with pytest.raises(ValueError, match="allowed are llama-3-8b, mistral-7b, smollm2"):
        load_preset("tinny")
    path = tmp_path / "p.toml"
    path.write_text("model =")
    with pytest.raises(ValueError, match="not valid TOML"):
        load_preset(str(path))
    path.write_text('template = "tiny"')
    with pytest.raises(ValueError, match="the setting model is missing"):
        load_preset(str(path))
