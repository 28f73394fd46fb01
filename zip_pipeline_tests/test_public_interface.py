"""The Python interface as it is documented."""

import doctest
import importlib

import pytest

import zip_pipeline


@pytest.mark.parametrize(
    "name", ["zip_pipeline", "zip_pipeline.workflow.sources", "zip_pipeline.workflow.selections"]
)
def test_examples_run(name: str) -> None:
    """What the docstrings show is what comes out."""
    results = doctest.testmod(importlib.import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_every_public_name_has_a_docstring() -> None:
    """``help`` has something to say on each, and an unknown name is an AttributeError."""
    assert [n for n in zip_pipeline.__all__ if not getattr(zip_pipeline, n).__doc__] == []
    assert set(zip_pipeline.__all__) <= set(dir(zip_pipeline))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        zip_pipeline.no_such_name  # noqa: B018
