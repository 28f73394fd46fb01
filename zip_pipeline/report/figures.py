"""Pictures of a selection, as PNG bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from zip_pipeline.figures import BLUE, GREY, clean, literal, new_figure, png, say_nothing
from zip_pipeline.report.fates import pool_rows, top_sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUM_SOURCES = 12
_NUM_BINS = 50
_LOWEST_EDGE = 0.1
# Beyond this factor between the ends of the axis it is logarithmic.
_WIDE = 20
_NUM_NAME_CHARACTERS = 28


def selection_figure(ledger: pl.DataFrame, title: str) -> bytes:
    """Return a PNG of what a selection took from its pool.

    Left: the distribution of each sample's own compression ratio over pool and subset (higher =
    more redundant; what samples share with one another does not show here). Right: the share of
    samples by source, for the 12 sources with most picks.
    """
    figure = new_figure(10, 4.2)
    left, right = figure.subplots(1, 2)
    pool = pool_rows(ledger)
    _draw_ratios(left, pool)
    _draw_sources(right, pool)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return png(figure)


def _edges(ratios: pl.Series) -> list[float]:
    """Return bin edges, of equal ratio where marginal ratios reach from 1 to thousands."""
    low = max(_number(ratios.min()), _LOWEST_EDGE)
    high = max(_number(ratios.max()), low + 1)
    parts = [i / _NUM_BINS for i in range(_NUM_BINS + 1)]
    if high > _WIDE * low:
        return [low * (high / low) ** part for part in parts]
    return [low + (high - low) * part for part in parts]


def _number(value: object) -> float:
    assert isinstance(value, int | float), value
    return float(value)


def _draw_ratios(axes: "Axes", pool: pl.DataFrame) -> None:
    axes.set_title("Compression ratio of each sample alone", fontsize=10)
    known = pool.filter(pl.col("initial_pi").is_finite())
    if known.is_empty():
        say_nothing(axes, "no ratio was measured")
        axes.set_xticks([])
        return
    edges = _edges(known["initial_pi"])
    picked = known.filter(pl.col("fate") == "picked")
    _draw_distribution(axes, "pool", known["initial_pi"], edges, GREY)
    _draw_distribution(axes, "subset", picked["initial_pi"], edges, BLUE)
    scale = ""
    if edges[-1] > _WIDE * edges[0]:
        scale = ", log scale"
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_minor_label)
    axes.set_xlabel(f"raw bytes / compressed bytes (higher = more redundant{scale})", fontsize=9)
    axes.set_ylabel("share of samples per bin, %", fontsize=9)
    axes.margins(x=0)
    axes.legend(frameon=False, fontsize=9)
    clean(axes)


def _minor_label(value: float, _: float) -> str:
    """Label 2 and 5 of each decade, so that a narrow range has labels too."""
    digit = f"{value:.0e}"[0]
    return f"{value:g}" if digit in "25" else ""


def _draw_distribution(
    axes: "Axes", name: str, ratios: pl.Series, edges: Sequence[float], colour: str
) -> None:
    if ratios.is_empty():
        return
    median = _number(ratios.median())
    # Whatever lies outside goes into the outer bins, so that the bars add up to all samples.
    values = ratios.clip(edges[0], edges[-1]).to_list()
    axes.hist(
        values,
        bins=list(edges),
        weights=[100 / len(values)] * len(values),
        color=colour,
        alpha=0.75,
        label=f"{name}: {len(values):,} samples, median {median:.2f}",
    )
    axes.axvline(median, color=colour, linestyle="--", linewidth=1.2)


def _short(name: str) -> str:
    half = _NUM_NAME_CHARACTERS // 2 - 1
    return name if len(name) <= _NUM_NAME_CHARACTERS else f"{name[:half]}…{name[-half:]}"


def _draw_sources(axes: "Axes", pool: pl.DataFrame) -> None:
    axes.set_title("Share of samples by source", fontsize=10)
    if pool.is_empty():
        say_nothing(axes, "the pool is empty")
        axes.set_xticks([])
        return
    table = top_sources(pool, _NUM_SOURCES).reverse()
    rows = list(range(table.height))
    for column, label, colour, offset in (
        ("pool_share", "pool", GREY, -0.2),
        ("subset_share", "subset", BLUE, 0.2),
    ):
        shares = (table[column] * 100).to_list()
        axes.barh([r + offset for r in rows], shares, height=0.38, color=colour, label=label)
    axes.set_yticks(rows, [literal(_short(name)) for name in table["source"]], fontsize=8)
    axes.set_xlabel("share of samples, %", fontsize=9)
    # Room at the right, so that the legend covers no bar.
    axes.set_xlim(0, 1.25 * axes.get_xlim()[1])
    num_left_out = pool["source"].n_unique() - table.height
    if num_left_out:
        axes.set_title(f"Share of samples by source ({num_left_out} more not shown)", fontsize=10)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    clean(axes)


_MARKED_POINTS = 60


def loss_figure(losses: Sequence[float], title: str, *, is_kto: bool = False) -> bytes:
    """Return a PNG of the training loss of each optimizer step, in nats per token.

    KTO's loss has no unit.
    """
    figure = new_figure(6.4, 3.4)
    axes = figure.subplots()
    steps = range(1, len(losses) + 1)
    marker = "o" if len(losses) <= _MARKED_POINTS else ""
    axes.plot(steps, losses, color=BLUE, linewidth=1.4, marker=marker, markersize=3)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel("KTO loss" if is_kto else "loss, nats per token", fontsize=9)
    clean(axes)
    axes.locator_params(axis="x", integer=True)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    return png(figure)
