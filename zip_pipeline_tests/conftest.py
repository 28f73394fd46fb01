"""Fixtures that several test folders use."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code: no test of properties measures time.
settings.register_profile(
    "busy_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy_machine")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Return the folder of real pools and reference picks, or skip where it is absent."""
    folder = Path(os.environ.get("ZIP_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "pools").is_dir():
        pytest.skip(f"no real pools at {folder}; set ZIP_SHARED to a folder that has them")
    return folder
