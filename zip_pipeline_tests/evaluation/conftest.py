"""What every test of the evaluation needs."""

from pathlib import Path

import pytest

from zip_pipeline_tests.evaluation.small_model import save_small_model


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback server directly, whatever proxy the machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with random weights and a context of 160 tokens."""
    return save_small_model(tmp_path_factory.mktemp("small_model"))
