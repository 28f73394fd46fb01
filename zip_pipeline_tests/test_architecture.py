"""Rules about the source itself."""

import re
from importlib import metadata
from pathlib import Path

import zip_pipeline
from zip_pipeline.defs import private

PACKAGE = Path(zip_pipeline.__file__).parent


def test_heavy_libraries_are_imported_inside_functions() -> None:
    """No module imports torch, transformers, TRL, tokenizers or matplotlib at its top."""
    heavy = re.compile(r"^(import|from) (torch|transformers|trl|tokenizers|matplotlib)\b", re.M)
    modules = list(PACKAGE.rglob("*.py"))
    assert len(modules) > 20
    assert [m.name for m in modules if heavy.search(m.read_text(encoding="utf-8"))] == []


def test_what_dagster_does_not_promise_is_in_one_module() -> None:
    """With another release of Dagster look at each name in it, then change the version here."""
    hidden = re.compile(r"\bdagster(\.\w+)*\._")
    found = {m.name for m in PACKAGE.rglob("*.py") if hidden.search(m.read_text(encoding="utf-8"))}
    assert found == {"private.py"}
    assert metadata.version("dagster") == "1.13.27"
    assert all(hasattr(private, name) for name in private.__all__)


def test_every_version_is_pinned_exactly() -> None:
    """What is tested is what is installed, and ``make audit`` can look each of them up."""
    lines = (PACKAGE.parent / "constraints.txt").read_text().splitlines()[1:]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==[0-9][A-Za-z0-9.]*", line) for line in lines]
    assert [line for line, pin in zip(lines, pins, strict=True) if not pin] == []
    names = [re.sub(r"[-_.]+", "-", pin[1].lower()) for pin in pins if pin]
    assert len(set(names)) == len(names) > 200
