"""Rules about the source itself."""

import re
import subprocess
import sys
from pathlib import Path

import zip_pipeline

PACKAGE = Path(zip_pipeline.__file__).parent


def test_layers_are_kept() -> None:
    """The import contracts of pyproject.toml hold."""
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


def test_heavy_libraries_are_imported_inside_functions() -> None:
    """No module imports torch, transformers, TRL, tokenizers or matplotlib at its top."""
    heavy = re.compile(r"^(import|from) (torch|transformers|trl|tokenizers|matplotlib)\b", re.M)
    modules = list(PACKAGE.rglob("*.py"))
    assert len(modules) > 20
    assert [m.name for m in modules if heavy.search(m.read_text(encoding="utf-8"))] == []
