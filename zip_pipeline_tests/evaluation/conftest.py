"""What every test of the evaluation needs."""

import pytest


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach the loopback server directly, whatever proxy the machine uses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
