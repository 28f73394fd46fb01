"""The picture of a selection."""

import io
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib import image
from PIL import Image

from zip_pipeline.report.figures import (
    BLUE,
    COLOURS,
    GREY,
    INK,
    new_figure,
    selection_figure,
    svg,
    titled,
)

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


def _luminance(colour: str) -> float:
    shares = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.03928 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * s for weight, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#0f1518"])
def test_every_colour_stands_out_from_a_light_and_a_dark_page(ground: str):
    """By the 3 to 1 that WCAG asks of graphics, and words by nearly its 4.5."""
    assert min(_contrast(colour, ground) for colour in (*COLOURS, GREY)) >= 3
    assert _contrast(INK, ground) >= 4


def test_figures_have_a_clear_ground():
    """Whatever page they are on shows through."""
    png = selection_figure(_ledger(300, 60), "a title")
    assert png is not None
    assert _pixels(png)[0, 0, 3] == 0


def test_figures_have_a_table_of_their_colours():
    """So they take half of the bytes, which Dagster's history keeps twice for each run."""
    png = selection_figure(_ledger(300, 60), "a title")
    assert png is not None
    assert Image.open(io.BytesIO(png)).mode == "P"


def test_selection_figure_draws_pool_and_subset():
    """Both panels are drawn: bars of the pool and bars of the subset are seen."""
    png = selection_figure(_ledger(300, 60), "a title")
    assert png is not None
    pixels = _pixels(png)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1000
    assert _has_colour(pixels, GREY)
    assert _has_colour(pixels, BLUE)


def test_selection_figure_of_the_same_ledger_is_the_same():
    """The same ledger gives the same bytes."""
    assert selection_figure(_ledger(40, 5), "t") == selection_figure(_ledger(40, 5), "t")


@pytest.mark.parametrize(
    "ledger",
    [
        pytest.param(_ledger(3, 0), id="nothing picked"),
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
    png = selection_figure(ledger, "odd $ title")
    assert png is not None
    assert _pixels(png).size


def test_names_are_drawn_as_they_are():
    """A formula, a line end and what turns text round are none in a figure; an SVG stays one."""
    name = "$\\frac{$ \\$x$\n\x1b[2J\u202e"
    figure = new_figure(3, 2)
    titled(figure, name)
    drawn = svg(figure, "odd", fonttype="none")
    ElementTree.fromstring(drawn)
    assert r"$\frac{$ \$x$\n\x1b[2J\u202e" in drawn.decode()


@pytest.mark.parametrize("num", [0, 1])
def test_selection_figure_is_not_drawn_of_one_sample(num: int):
    """One sample has no distribution and one source no share."""
    assert selection_figure(_ledger(num, num), "few") is None


def test_selection_figure_has_panels_of_what_is_known_alone():
    """Without ratios, and with one source alone, one panel is half as wide as two."""
    both = _ledger(5, 2)
    tables = (
        both,
        both.with_columns(initial_pi=pl.lit(None, pl.Float64)),
        both.with_columns(source=pl.lit("a")),
    )
    drawn = [selection_figure(table, "t") for table in tables]
    assert [_pixels(png).shape[1] for png in drawn if png] == [1100, 550, 550]
