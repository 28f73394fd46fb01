"""Chat models: loaded safely, told apart by their content."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from zip_pipeline.chat_models import _tokenizer_class, load_model, load_tokenizer, model_identity
from zip_pipeline.compression.tokens import TINY_MODEL


def test_a_plain_tokenizer_is_the_one_that_transformers_would_load() -> None:
    """Torch, which takes seconds to import, is not needed for it."""
    code = (
        "import sys; from zip_pipeline.chat_models import load_tokenizer\n"
        f"found = load_tokenizer({str(TINY_MODEL)!r}, None)\n"
        "print('torch' in sys.modules, repr(found), found.backend_tokenizer.to_str(), sep='\\n')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted: Any = AutoTokenizer.from_pretrained(TINY_MODEL)
    assert run.stdout == f"False\n{wanted!r}\n{wanted.backend_tokenizer.to_str()}\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"model_type": "mistral"}),
        ("tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"}),
        ("tokenizer_config.json", {}),
        ("tokenizer_config.json", []),
    ],
)
def test_transformers_chooses_the_class_of_any_other_tokenizer(
    tmp_path: Path, name: str, content: object
) -> None:
    """Or of one whose files do not say what it is."""
    for known in ("config.json", "tokenizer_config.json"):
        shutil.copy(TINY_MODEL / known, tmp_path)
    assert _tokenizer_class(tmp_path) is not AutoTokenizer
    (tmp_path / name).write_text(json.dumps(content))
    assert _tokenizer_class(tmp_path) is AutoTokenizer


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
