"""The picture of a selection."""

import io

import numpy as np
import polars as pl
import pytest
from matplotlib import image

from zip_pipeline.report.figures import selection_figure

_SCHEMA = {"source": pl.String, "fate": pl.String, "num_bytes": pl.Int64, "initial_pi": pl.Float64}


def _ledger(num: int, num_picked: int) -> pl.DataFrame:
    rows = [
        (f"source $ {i % 30}", "picked" if i < num_picked else "candidate", 10, 1 + i / 100)
        for i in range(num)
    ]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n")
    return np.asarray(image.imread(io.BytesIO(png), format="png"))


def _has_colour(pixels: np.ndarray, colour: str) -> bool:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return bool((np.abs(pixels[..., :3] * 255 - wanted) < 2).all(axis=-1).sum() > 100)


def test_selection_figure_draws_pool_and_subset():
    """Both panels are drawn: bars of the pool and bars of the subset are seen."""
    pixels = _pixels(selection_figure(_ledger(300, 60), "a title"))
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1000
    assert _has_colour(pixels, "#a9afb9")
    assert _has_colour(pixels, "#1f6fb2")


def test_selection_figure_of_the_same_ledger_is_the_same():
    """The same ledger gives the same bytes."""
    assert selection_figure(_ledger(40, 5), "t") == selection_figure(_ledger(40, 5), "t")


@pytest.mark.parametrize(
    "ledger",
    [
        pytest.param(_ledger(0, 0), id="empty pool"),
        pytest.param(_ledger(3, 0), id="nothing picked"),
        pytest.param(_ledger(1, 1), id="one sample"),
        pytest.param(
            _ledger(5, 2).with_columns(initial_pi=pl.lit(None, pl.Float64)), id="no ratio"
        ),
        pytest.param(
            _ledger(5, 2).with_columns(initial_pi=pl.lit(float("inf"))), id="infinite ratio"
        ),
        pytest.param(_ledger(5, 2).with_columns(initial_pi=pl.lit(1e6)), id="ratio of the dropped"),
        pytest.param(_ledger(5, 2).with_columns(source=pl.lit("x" * 200)), id="long name"),
    ],
)
def test_selection_figure_draws_odd_ledgers(ledger: pl.DataFrame):
    """No ledger is too small or too odd for a picture."""
    assert _pixels(selection_figure(ledger, "odd $ title")).size
