"""What holds for all whole programs that are started here."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_coverage_of_programs() -> Iterator[None]:
    """Start programs without coverage, whose own files a kill would break.

    Their lines are covered by quicker tests, and starting them would take half as long again.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
            patch.delenv(name)
        yield
