"""How long a selection will take, in figures and in words."""

import time
from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from zip_pipeline.compression.state import texts_of
from zip_pipeline.compression.texts import TemporaryTexts
from zip_pipeline.selection.candidates import Candidates, Measured, measure
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import run_selection
from zip_pipeline.selection.run import Pilot, Progress, RemainingTime, about
from zip_pipeline.selection.strategies import strategies
from zip_pipeline_tests.selection.pools import numbered_pool


@pytest.mark.slow
def test_the_estimate_of_zip_is_of_the_order_of_the_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a factor of five on a small pool, and it costs a fraction of the selection."""
    # Processor time, so that a busy machine does not fail the test.
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    config = SelectionConfig(strategy="zip", budget_samples=600, k1=1500, k2=100, k3=30)
    table = numbered_pool(2500)
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        pool = measure(Candidates(table, texts), config, "tiny", 1)
        started = time.perf_counter()
        estimate = strategies["zip"].estimate(pool, config, 1)
        between = time.perf_counter()
        run_selection(pool, config, workers=1)
        ended = time.perf_counter()
    assert estimate is not None
    assert between - started < 0.3 * (ended - between)
    assert 0.2 < estimate / (ended - between) < 5


# Measured: samples, mean bytes, budget; of the first second of rounds seconds, used, rounds; in
# all seconds.
@pytest.mark.parametrize(
    ("mean_bytes", "used", "num_rounds", "seconds", "real_seconds"),
    [
        pytest.param(910, 318_600, 13, 1.0, 6.8, id="81,262 samples"),
        pytest.param(886, 56_600, 13, 1.1, 19.3, id="338,653 samples"),
        pytest.param(882, 7_954, 7, 1.2, 70.3, id="1,368,217 samples"),
    ],
)
def test_the_estimate_of_long_range_is_of_the_order_of_measured_times(
    mean_bytes: int, used: int, num_rounds: int, seconds: float, real_seconds: float
) -> None:
    """Half to twice the time that selections from pools of all sizes took."""
    config = SelectionConfig(strategy="long_range", budget_bytes=7_080_000)
    index = pl.DataFrame({"source": ["s"], "sample_id": ["a"]})
    costs = np.array([mean_bytes])
    with TemporaryTexts.write([[b" " * mean_bytes]]) as texts:
        pool = Measured(Candidates(index, texts), None, costs / 1.0, costs)
        pilot = Pilot(7_080_000, used, num_rounds, seconds)
        estimate = strategies["long_range"].estimate_after(pilot, pool, config)
    assert estimate is not None
    assert 0.5 < estimate / real_seconds < 2


def test_the_estimate_of_coverage_is_of_the_order_of_measured_times() -> None:
    """1 MB of 81,262 samples took 7.7 s where 7.08 MB took 20 s."""
    config = SelectionConfig(strategy="coverage", budget_bytes=7_080_000)
    costs = np.array([900])
    with TemporaryTexts.write([[b" "]]) as texts:
        index = pl.DataFrame({"source": ["s"], "sample_id": ["a"]})
        pool = Measured(Candidates(index, texts), None, costs / 1.0, costs)
        pilot = Pilot(7_080_000, 1_000_000, 7, 7.7)
        estimate = strategies["coverage"].estimate_after(pilot, pool, config)
    assert estimate is not None
    assert 0.5 < estimate / 20 < 2


def test_long_range_is_estimated_once_after_its_first_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A short selection is not estimated at all; what was picked before does not count."""
    config = SelectionConfig(strategy="long_range", budget_samples=60, k1=80, k2=20, k3=5)
    table = numbered_pool(200)
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        pool = measure(Candidates(table, texts), config, "tiny", 1)
        for pilot_seconds, expected in ((1000.0, []), (0.0, [1])):
            monkeypatch.setattr("zip_pipeline.selection.rounds.PILOT_SECONDS", pilot_seconds)
            reports: list[Progress] = []
            run_selection(pool, config, workers=1, progress=reports.append)
            assert [report.round for report in reports if report.is_estimate] == expected
            assert reports[-1].used == 60
    assert 0 < (reports[0].remaining_seconds or 0) < 60


def test_more_picks_and_fewer_workers_take_longer() -> None:
    """Twice the budget takes about twice as long, twice the workers half as long."""
    table = numbered_pool(800)
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        seconds = []
        for budget, workers in ((100, 1), (400, 1), (400, 8)):
            config = SelectionConfig(strategy="zip", budget_samples=budget, k1=500, k2=100, k3=30)
            pool = measure(Candidates(table, texts), config, "tiny", 1)
            seconds.append(strategies["zip"].estimate(pool, config, workers))
    assert seconds[0] < seconds[1]
    assert seconds[2] < seconds[1] / 2


def test_few_long_texts_are_probed() -> None:
    """As many as fit into some megabytes, and one where none does."""
    probed = []

    class Noted(TemporaryTexts):
        def read(self, indices: Iterable[int] | NDArray[np.int64]) -> list[bytes]:
            found = super().read(indices)
            probed.append(len(found))
            return found

    config = SelectionConfig(strategy="zip", budget_samples=5)
    index = pl.DataFrame({"source": ["s"] * 20, "sample_id": [f"{n:02}" for n in range(20)]})
    for size in (1_000_000, 9_000_000):
        with Noted.write([[b" " * size] * 20]) as texts:
            costs = np.full(20, size)
            pool = Measured(Candidates(index, texts), None, costs / 1.0, costs)
            strategies["zip"].estimate(pool, config, 1)
    assert probed == [8, 1]


def test_nothing_to_select_takes_no_time() -> None:
    """An empty pool is estimated at 0 seconds."""
    config = SelectionConfig(strategy="zip", budget_samples=5)
    table = numbered_pool(0)
    with TemporaryTexts.write([texts_of(table, "sft")]) as texts:
        pool = measure(Candidates(table, texts), config, "tiny", 1)
        assert strategies["zip"].estimate(pool, config, 1) == 0.0


def test_remaining_time_follows_the_rate_of_the_last_rounds() -> None:
    """20 rounds back at most; what was used before the clock started does not count."""
    remaining = RemainingTime(1000, 100)
    assert remaining.after(100, 0.5) == (None, None)
    assert remaining.after(150, 5.0) == (10.0, 85.0)
    for number in range(30):
        last = remaining.after(151 + number, 6.0 + number)
    assert last == pytest.approx((1.0, 820.0))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(4.4, "about 4 s"), (89, "about 89 s"), (150, "about 2 min"), (9000, "about 2.5 h")],
)
def test_durations_are_rounded_as_people_do(seconds: float, words: str) -> None:
    """Seconds up to 90, then minutes up to 90, then hours."""
    assert about(seconds) == words


def test_a_report_in_words_tells_rate_and_remaining_time() -> None:
    """The estimate at first, then what was done, how fast, and how long the rest takes."""
    first = Progress(0, 0, 0, 9000, "tokens", 0.0, remaining_seconds=300.0, is_estimate=True)
    later = Progress(
        4, 40, 3000, 9000, "tokens", 10.0, phase="Merging", rate=300.0, remaining_seconds=20.0
    )
    assert first.words() == "Selecting: estimated time about 5 min"
    assert later.words() == (
        "Merging: round 4, 40 picked, 3,000 of 9,000 tokens in 10 s, 300 tokens/s, about 20 s left"
    )
