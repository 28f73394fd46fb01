"""Rules about the source itself."""

import re
from pathlib import Path

import zip_pipeline

PACKAGE = Path(zip_pipeline.__file__).parent


def test_heavy_libraries_are_imported_inside_functions() -> None:
    """No module imports torch, transformers, TRL, tokenizers or matplotlib at its top."""
    heavy = re.compile(r"^(import|from) (torch|transformers|trl|tokenizers|matplotlib)\b", re.M)
    modules = list(PACKAGE.rglob("*.py"))
    assert len(modules) > 20
    assert [m.name for m in modules if heavy.search(m.read_text(encoding="utf-8"))] == []
