"""The Python interface as it is documented."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import zip_pipeline

README = Path(zip_pipeline.__file__).parents[1] / "README.md"


@pytest.mark.parametrize(
    "name", ["zip_pipeline", "zip_pipeline.workflow.sources", "zip_pipeline.workflow.selections"]
)
def test_examples_run(name: str) -> None:
    """What the docstrings show is what comes out."""
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the section "From Python" run as they stand, on a file of that name."""
    section = README.read_text(encoding="utf-8").partition("## From Python\n")[2]
    match = re.search(r"```python\n(.*?)```", section, re.S)
    assert match is not None
    monkeypatch.chdir(tmp_path)
    records = "".join(f'{{"question": "{n}?", "answer": "{n * n}"}}\n' for n in range(30))
    Path("chats.jsonl").write_text(records, encoding="utf-8")
    exec(compile(match[1], "README.md", "exec"), {})
    assert Path("picked.jsonl").read_text(encoding="utf-8").count("\n") > 0


def test_every_public_name_has_a_docstring() -> None:
    """``help`` has something to say on each, and an unknown name is an AttributeError."""
    assert [n for n in zip_pipeline.__all__ if not getattr(zip_pipeline, n).__doc__] == []
    assert set(zip_pipeline.__all__) <= set(dir(zip_pipeline))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        zip_pipeline.no_such_name  # noqa: B018
