"""Pictures of a selection, of a training and of the entropy law, as PNG bytes."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from zip_pipeline.entropy_law.fit import Curve, Relation
from zip_pipeline.entropy_law.table import is_blocked
from zip_pipeline.report.fates import pool_rows, top_sources

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY = "#1f6fb2", "#c0392b", "#a9afb9"


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches, without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def literal(text: str) -> str:
    """Return the text with ``$`` made literal: matplotlib would read formulas between two."""
    return text.replace("$", r"\$")


def say_nothing(axes: "Axes", text: str) -> None:
    """Write why there is nothing to draw."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#666666")
    axes.set_yticks([])


def clean(axes: "Axes") -> None:
    """Take away the frame's upper and right side, and make the numbers small."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=8)


def png(figure: "Figure") -> bytes:
    """Return a figure as the bytes of a PNG picture."""
    stream = io.BytesIO()
    # No creation date or library version inside: the same table gives the same bytes.
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()


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


AXES = {
    "R": "R, raw / compressed bytes",
    "L": "L, probe loss, nats per token",
    "Z": "Z",
}
"""What stands at an axis."""
_MAX_LABELS = 40


def relation_figure(relation: Relation, title: str) -> bytes:
    """Return a PNG of one relation: versions as points, curve with its 95% band where fitted.

    Blocked versions are red crosses; where they have no y (they were not trained) a dashed line
    stands at their x. Bars are one spread.
    """
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    if relation.curve is not None:
        draw_curve(axes, relation.curve)
    _scatter(axes, relation.points, relation.x, relation.y)
    blocked = relation.without_y.filter(is_blocked())
    for number, x in blocked.select("version", relation.x).iter_rows():
        axes.axvline(x, color=RED, linestyle="--", linewidth=1)
        words = f"v{number} blocked, not trained"
        _write(axes, words, x, 0.98, xytext=(-3, 0), rotation=90, ha="right", va="top", color=RED)
    if relation.points.is_empty():
        say_nothing(axes, f"no version with {relation.x} and {relation.y} yet")
    finish(axes, _label(relation.x, relation.points), _label(relation.y, relation.points))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="best")
    figure.suptitle(literal(title), fontsize=12, fontweight="bold")
    axes.set_title(relation.note, fontsize=9, color="#444444")
    return png(figure)


def draw_curve(axes: "Axes", curve: Curve) -> None:
    """Draw a fitted curve with its 95% band."""
    axes.fill_between(curve.grid, curve.low, curve.high, color=GREY, alpha=0.35, linewidth=0)
    axes.plot(curve.grid, curve.mean, color=GREY, linewidth=1.6, label=curve.words)


def versions_figure(table: pl.DataFrame, stage: str, title: str) -> bytes:
    """Return a PNG of R, L and Z over the versions of a stage, one panel each.

    A line joins the versions of one series that were not blocked (of Z: also measured alike); a
    dotted line marks where the probe's settings or the budget changed, so that R and L on its two
    sides cannot be compared.
    """
    from matplotlib.ticker import MaxNLocator

    rows = table.filter(pl.col("stage") == stage).sort("version")
    figure = new_figure(8.4, 6.6)
    panels = figure.subplots(3, 1, sharex=True)
    for axes, name in zip(panels, ("R", "L", "Z"), strict=True):
        known = rows.filter(pl.col(name).is_not_null())
        _draw_lines(axes, known, name)
        _scatter(axes, known, "version", name, labelled=False)
        if known.is_empty():
            say_nothing(axes, f"{name} was not measured yet")
        if name == "Z":
            for number in rows.filter(is_blocked() & pl.col("Z").is_null())["version"]:
                _write(axes, "not trained", number, 0.04, xytext=(0, 0), ha="center", color=RED)
        _draw_borders(axes, rows, written=name == "R")
        finish(axes, "", _label(name, known).replace(", ", "\n"))
        axes.margins(y=0.2)
    panels[-1].set_xlabel("version", fontsize=9)
    if rows.height:
        panels[-1].set_xlim(rows["version"][0] - 0.5, rows["version"][-1] + 0.5)
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=20))
    panels[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    figure.suptitle(literal(title), fontsize=12, fontweight="bold", x=0.02, ha="left")
    return png(figure)


def _scatter(axes: "Axes", rows: pl.DataFrame, x: str, y: str, *, labelled: bool = True) -> None:
    overridden = pl.col("verdict").eq("risk").fill_null(False) & ~is_blocked()
    groups = (
        ("not blocked", rows.filter(~is_blocked() & ~overridden), "o", BLUE, BLUE),
        ("risk, let through", rows.filter(overridden), "o", "white", RED),
        ("risk, blocked", rows.filter(is_blocked()), "X", RED, RED),
    )
    for label, group, marker, face, edge in groups:
        axes.errorbar(
            group[x].to_list(),
            group[y].to_list(),
            xerr=_spread(group, x),
            yerr=_spread(group, y),
            fmt=marker,
            markersize=7,
            markerfacecolor=face,
            markeredgecolor=edge,
            ecolor=edge,
            elinewidth=1,
            capsize=2,
            # An empty group still gets its place in the legend of the panels.
            label=label if group.height or not labelled else None,
            zorder=3,
        )
    if labelled and rows.height <= _MAX_LABELS:
        _write_versions(axes, rows, x, y)


def _write_versions(axes: "Axes", rows: pl.DataFrame, x: str, y: str) -> None:
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    for number, at_x, at_y in rows.select("version", x, y).iter_rows():
        axes.annotate(
            f"v{number}",
            (at_x, at_y),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=8,
            zorder=4,
            path_effects=halo,
        )


def _spread(rows: pl.DataFrame, name: str) -> list[float] | None:
    column = f"{name}_spread"
    if column not in rows.columns or rows[column].null_count() == rows.height:
        return None
    return [float(spread) for spread in rows[column].fill_null(0.0)]


def _draw_lines(axes: "Axes", rows: pl.DataFrame, name: str) -> None:
    kept = rows.filter(~is_blocked())
    alike = ["series", "Z_name"] if name == "Z" else ["series"]
    for _, group in kept.group_by(alike, maintain_order=True):
        axes.plot(group["version"].to_list(), group[name].to_list(), color=GREY, linewidth=1.2)


def _write(axes: "Axes", words: str, x: float, height: float, **style: Any) -> None:  # noqa: ANN401
    """Write words at x, at a share of the panel's height."""
    place = axes.get_xaxis_transform()
    axes.annotate(
        words, (x, height), xycoords=place, textcoords="offset points", fontsize=8, **style
    )


def _draw_borders(axes: "Axes", rows: pl.DataFrame, *, written: bool) -> None:
    series, versions = rows["series"].to_list(), rows["version"].to_list()
    for place in range(1, rows.height):
        if series[place] == series[place - 1]:
            continue
        border = (versions[place] + versions[place - 1]) / 2
        axes.axvline(border, color="#666666", linestyle=":", linewidth=1)
        if written:
            words = "other probe settings"
            _write(axes, words, border, 0.95, xytext=(3, 0), va="top", color="#666666")


def _label(name: str, rows: pl.DataFrame) -> str:
    measured = rows["Z_name"].drop_nulls().unique(maintain_order=True).to_list()
    if name == "Z" and measured:
        how = measured[0] if len(measured) == 1 else f"measured in {len(measured)} ways"
        return literal(f"Z, {how}")
    return AXES[name]


def finish(axes: "Axes", x_label: str, y_label: str) -> None:
    """Label the axes, and leave room around what is drawn."""
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.margins(0.12)
    clean(axes)
