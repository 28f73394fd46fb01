"""Picks, ledgers and manifests stay the same while the code around them changes."""

import json
from pathlib import Path
from typing import Any

import pytest

from zip_pipeline.compression.codecs import codec_versions
from zip_pipeline_tests.end_to_end.recorded_selections import (
    REAL_POOLS,
    RECORDED,
    SAMPLE_POOL,
    hashes_of,
    write_pool,
)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """Return the recorded hashes, or skip where other codecs would give other sizes."""
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    if found["codecs"] != codec_versions():
        pytest.skip(f"recorded with {found['codecs']}, here are {codec_versions()}")
    return found


@pytest.fixture(scope="module")
def sample_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with the drops of the sample pool."""
    folder = tmp_path_factory.mktemp("pool")
    write_pool(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLE_POOL)
def test_selections_of_the_sample_pool_are_as_recorded(
    recorded: dict[str, Any], sample_pool: Path, tmp_path: Path, case: str
) -> None:
    """Subset, ledger and manifest are the same to the letter."""
    assert hashes_of(SAMPLE_POOL[case], sample_pool, tmp_path) == recorded[case]


@pytest.mark.slow
@pytest.mark.parametrize("case", REAL_POOLS)
def test_selections_of_real_pools_are_as_recorded(
    recorded: dict[str, Any], shared_folder: Path, tmp_path: Path, case: str
) -> None:
    """So are those of real pools, where there are some."""
    assert hashes_of(REAL_POOLS[case], shared_folder / "pools", tmp_path) == recorded[case]
