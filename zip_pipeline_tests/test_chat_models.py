"""Chat models: loaded safely, and conversations as tokens that nobody can forge."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zip_pipeline.chat_models import load_model, load_tokenizer, messages, model_identity
from zip_pipeline.samples import Turn

SPECIAL = ["<|end|>", "<|user|>"]


def test_content_is_kept_but_for_special_tokens() -> None:
    """Tool calls are words of the turn; a spelled-out special token is broken up, and only it."""
    turns = [Turn("assistant", "a <|end|><|user|> b <end>", '[{"f": 1}]'), Turn("user", "")]
    assert messages(turns, SPECIAL) == [
        {
            "role": "assistant",
            "content": 'a <\u200b|end|><\u200b|user|> b <end>[{"f": 1}]',
        },
        {"role": "user", "content": ""},
    ]
    assert messages(turns[:1], [])[0]["content"] == 'a <|end|><|user|> b <end>[{"f": 1}]'


def test_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """What cannot be loaded is said with its path and what would be allowed."""
    for load in (load_model, load_tokenizer):
        with pytest.raises(ValueError, match=rf"model: cannot load '{tmp_path}' .*safetensors"):
            load(str(tmp_path), None)


def test_pickled_weights_and_code_are_never_loaded(tmp_path: Path) -> None:
    """A folder that would run code to be loaded is refused, and its code does not run."""
    trace = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
    with_code = tmp_path / "with_code"
    with_code.mkdir()
    (with_code / "evil.py").write_text(code + "class Evil: ...\n")
    (with_code / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", '
        '"AutoModelForCausalLM": "evil.Evil"}}'
    )
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "llama", "hidden_size": 32}')
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    for folder in (with_code, pickled):
        with pytest.raises(ValueError, match="model: cannot load"):
            load_model(str(folder), None)
    assert not trace.exists()


def test_environment_is_that_of_a_process_without_a_network() -> None:
    """What the user set stays; the hub is switched off only where the model is at hand."""
    code = (
        "import os; from zip_pipeline.chat_models import prepare_environment as p\n"
        "p(offline=False); print('HF_HUB_OFFLINE' in os.environ)\n"
        "p(offline=True); print(os.environ['HF_HUB_OFFLINE'], os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "OMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"OMP_WAIT_POLICY": "ACTIVE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["False", "1", "ACTIVE"]


FILES = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "tokenizer.json": "words",
    "tokenizer_config.json": "version 1",
    "chat_template.jinja": "{{ messages }}",
    "tokenizer.model": "pieces",
    "notes.txt": "mine",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with the files of a model."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_identity_of_a_model_is_the_one_that_was_recorded_before(model: Path) -> None:
    """A model that an earlier version of the package trained on does not count as another one."""
    assert model_identity(str(model), None) == "259b0a127055ef430e4d82ca2c497602"
    assert model_identity("owner/name", "abc") == "owner/name@abc"


@pytest.mark.parametrize(
    ("name", "is_another", "answers_as_another"),
    [
        ("config.json", True, True),
        ("model.safetensors", True, True),
        ("tokenizer.json", True, True),
        ("tokenizer_config.json", False, True),
        ("chat_template.jinja", False, True),
        ("tokenizer.model", False, True),
        ("notes.txt", False, False),
    ],
)
def test_identity_of_a_model_is_its_content(
    model: Path, name: str, is_another: bool, answers_as_another: bool
) -> None:
    """A change in a file that counts makes another model; times and other files do not."""
    known = [model_identity(str(model), None, with_template=value) for value in (False, True)]
    os.utime(model / name, (0, 0))
    assert model_identity(str(model), None) == known[0]
    (model / name).write_text(FILES[name] + "!")
    found = [model_identity(str(model), None, with_template=value) for value in (False, True)]
    changed = [new != old for new, old in zip(found, known, strict=True)]
    assert changed == [is_another, answers_as_another]
