"""Pictures of a selection, of a training and of the entropy law, as PNG bytes.

A picture says something from two points on: with fewer there is none.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from zip_pipeline.entropy_law.fit import Curve, Relation
from zip_pipeline.entropy_law.table import is_blocked
from zip_pipeline.entropy_law.verdict import is_named, judge
from zip_pipeline.report.fates import pool_rows, top_sources
from zip_pipeline.terminal_text import shown_in_cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All colours of all figures. The ground is clear and each of these stands out from a light and from
# a dark page, of which a picture does not know on which it is.
INK, GREY = "#767c86", "#8b919b"
BLUE, RED, GREEN, AMBER = "#3d85c6", "#d9483b", "#3f9e5f", "#b8791a"
COLOURS = (BLUE, RED, GREEN, AMBER, "#9a6dd7", "#2a9292", "#d0609a", "#a9755a")
"""Of what is told apart by colour."""
_MIN_POINTS = 2


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of that size in inches, without a window system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def titled(figure: "Figure", title: str) -> None:
    """Write the title of a figure."""
    figure.suptitle(literal(title), fontsize=12, fontweight="bold", color=INK)


def literal(text: str) -> str:
    """Return the text with ``$`` made literal: matplotlib would read formulas between two.

    Control characters are readable; an SVG may hold none.
    """
    return shown_in_cell(text).replace("$", r"\$")


def clean(axes: "Axes") -> None:
    """Take away the frame's upper and right side, and give the rest the colour of the words."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(INK)
    axes.tick_params(which="both", labelsize=8, colors=INK)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)


def png(figure: "Figure") -> bytes:
    """Return a figure as the bytes of a PNG picture, with a table of its 256 most common colours.

    So it takes half as much: Dagster's history keeps each picture twice, for good. Other colours,
    of the edges of signs, become the nearest of these.
    """
    from PIL import Image

    drawn, stream = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    pixels = np.asarray(Image.open(drawn).convert("RGBA")).view(np.uint32)[:, :, 0]
    colours, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    table = colours[np.argsort(-counts, kind="stable")[:256]]
    apart = (_channels(colours)[:, None] - _channels(table)) ** 2
    numbers = apart.sum(axis=2).argmin(axis=1).astype(np.uint8)
    picture = Image.fromarray(numbers[places].reshape(pixels.shape)).convert("P")
    picture.putpalette(table.tobytes(), "RGBA")
    # No creation date or library version is inside: the same table gives the same bytes.
    picture.save(stream, format="png")
    return stream.getvalue()


def _channels(colours: np.ndarray) -> np.ndarray:
    return colours.view(np.uint8).reshape(-1, 4).astype(np.float32)


def svg(figure: "Figure", salt: str, **settings: object) -> bytes:
    """Return a figure as SVG, without a date and with the same ids each time.

    Args:
        figure: the figure.
        salt: what its ids are made from.
        settings: more of matplotlib's, by their names after ``svg.``.
    """
    import matplotlib

    stream = io.BytesIO()
    chosen: dict[Any, Any] = {f"svg.{name}": value for name, value in settings.items()}
    with matplotlib.rc_context(chosen | {"svg.hashsalt": salt}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


_INKS = re.compile(f"{INK}|#000000|#444444|#666666")


def inline_svg(figure: "Figure", salt: str) -> str:
    """Return a figure for a page: its ink is that of the page's words, and words stay words."""
    drawn = svg(figure, salt, fonttype="none").decode("utf-8")
    in_ink = _INKS.sub("currentColor", drawn).replace("#ffffff", "var(--page)")
    return in_ink[in_ink.index("<svg") :]


def legend_below(figure: "Figure", known: Iterable[tuple[Any, Any]]) -> None:
    """Draw one legend of marks and labels under all panels; what has the same label once."""
    marks = {label: mark for mark, label in known}
    style = {"frameon": False, "fontsize": 8, "labelcolor": INK, "ncols": 5}
    figure.legend([*marks.values()], [*marks], loc="outside lower center", **style)


def legend(axes: "Axes", **where: Any) -> None:  # noqa: ANN401
    """Draw the legend above the panel, where it covers nothing."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3} | where
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, borderaxespad=0.2, **place)


_NUM_SOURCES = 12
_NUM_BINS = 50
_LOWEST_EDGE = 0.1
# Beyond this factor between the ends of the axis it is logarithmic.
_WIDE = 20
_NUM_NAME_CHARACTERS = 28


def selection_figure(ledger: pl.DataFrame, title: str) -> bytes | None:
    """Return a PNG of what a selection took from its pool; None where the pool has no two samples.

    Left: the distribution of each sample's own compression ratio over pool and subset (higher =
    more redundant; what samples share with one another does not show here). Right: the share of
    samples by source, for the 12 sources with most picks. What is not known, or of one source
    alone, has no panel.
    """
    pool = pool_rows(ledger)
    panels: list[Callable[[Axes, pl.DataFrame], None]] = []
    if pool.filter(pl.col("initial_pi").is_finite()).height >= _MIN_POINTS:
        panels.append(_draw_ratios)
    if pool["source"].n_unique() >= _MIN_POINTS:
        panels.append(_draw_sources)
    if not panels:
        return None
    figure = new_figure(5 * len(panels), 4.4)
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, pool)
        clean(axes)
    titled(figure, title)
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


_RATIO = "raw bytes / compressed bytes (higher = more redundant{})"


def _draw_ratios(axes: "Axes", pool: pl.DataFrame, *, median: bool = True) -> None:
    axes.set_title("Compression ratio of each sample alone", fontsize=10, pad=22)
    _draw_both(axes, pool, "initial_pi", _RATIO, median=median)


def _draw_both(
    axes: "Axes", pool: pl.DataFrame, column: str, label: str, *, median: bool = True
) -> None:
    """Draw the distributions of a number over pool and subset."""
    known = pool.filter(pl.col(column).cast(pl.Float64).is_finite())
    edges = _edges(known[column])
    picked = known.filter(pl.col("fate") == "picked")
    for name, rows, colour in (("pool", known, GREY), ("subset", picked, BLUE)):
        _draw_distribution(axes, name, rows[column], edges, colour, median=median)
    scale = ""
    if edges[-1] > _WIDE * edges[0]:
        scale = ", log scale"
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(_minor_label)
    axes.set_xlabel(label.format(scale), fontsize=9)
    axes.set_ylabel("share of samples per bin, %", fontsize=9)
    axes.margins(x=0)
    legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1))


def before_after_figure(ledger: pl.DataFrame) -> "Figure":
    """Return how long, and how redundant by themselves, the samples of pool and subset are.

    No median ratio is told: what samples share with one another does not show in it. What is not
    known of two samples has no panel.
    """
    figure = new_figure(10, 3.8)
    pool = pool_rows(ledger)
    unit = "bytes" if pool["num_tokens"].null_count() else "tokens"
    left, right = figure.subplots(1, 2)
    for axes, column in ((left, f"num_{unit}"), (right, "initial_pi")):
        if pool.filter(pl.col(column).cast(pl.Float64).is_finite()).height < _MIN_POINTS:
            axes.set_axis_off()
        elif column == "initial_pi":
            _draw_ratios(axes, pool, median=False)
        else:
            axes.set_title("Length of each sample", fontsize=10, pad=22)
            _draw_both(axes, pool, column, unit + "{}")
        clean(axes)
    return figure


def _minor_label(value: float, _: float) -> str:
    """Label 2 and 5 of each decade, so that a narrow range has labels too."""
    digit = f"{value:.0e}"[0]
    return f"{value:g}" if digit in "25" else ""


def _draw_distribution(
    axes: "Axes",
    name: str,
    ratios: pl.Series,
    edges: Sequence[float],
    colour: str,
    *,
    median: bool,
) -> None:
    if ratios.is_empty():
        return
    middle = _number(ratios.median())
    # Whatever lies outside goes into the outer bins, so that the bars add up to all samples.
    values = ratios.clip(edges[0], edges[-1]).to_numpy()
    axes.hist(
        values,
        bins=list(edges),
        weights=np.full(len(values), 100 / len(values)),
        color=colour,
        alpha=0.75,
        label=f"{name}: {len(values):,}" + f", median {middle:,.2f}" * median,
    )
    if median:
        axes.axvline(middle, color=colour, linestyle="--", linewidth=1.2)


def _short(name: str) -> str:
    half = _NUM_NAME_CHARACTERS // 2 - 1
    return name if len(name) <= _NUM_NAME_CHARACTERS else f"{name[:half]}…{name[-half:]}"


def _draw_sources(axes: "Axes", pool: pl.DataFrame) -> None:
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
    num_left_out = pool["source"].n_unique() - table.height
    more = f" ({num_left_out} more not shown)" if num_left_out else ""
    axes.set_title(f"Share of samples by source{more}", fontsize=10, pad=22)
    legend(axes, loc="lower center", bbox_to_anchor=(0.5, 1))


_MARKED_POINTS = 60


@dataclass(frozen=True)
class Losses:
    """The loss of each optimizer step, and its mean as it is reported elsewhere."""

    name: str
    steps: Sequence[float]
    mean: float


def loss_figure(
    losses: Losses, title: str, *, unit: str = "nats per token", before: Losses | None = None
) -> bytes | None:
    """Return a PNG of the loss of each optimizer step with its mean; None below two steps.

    Args:
        losses: what was measured.
        title: of the figure.
        unit: of the loss; KTO's has none.
        before: those of the version before, to compare with.
    """
    if len(losses.steps) < _MIN_POINTS:
        return None
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    for line, colour in ((before, GREY), (losses, BLUE)):
        if line is None:
            continue
        steps = range(1, len(line.steps) + 1)
        label = f"{line.name}, mean {line.mean:.4g}"
        marker = "o" if len(line.steps) <= _MARKED_POINTS else ""
        axes.plot(steps, line.steps, color=colour, lw=1.4, marker=marker, ms=3, label=label)
        axes.axhline(line.mean, color=colour, linestyle="--", linewidth=1)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel(f"loss, {unit}" if unit else "loss", fontsize=9)
    axes.locator_params(axis="x", integer=True)
    legend(axes)
    clean(axes)
    titled(figure, title)
    return png(figure)


AXES = {
    "R": "R, raw / compressed bytes",
    "L": "L, nats per token",
    "Z": "Z, higher is better",
}
"""What stands at an axis."""
_MAX_LABELS = 40
# Where the versions are named that have no y, as a share of the panel's height.
_HEIGHT_OF_LABELS = 0.95


def standing_figure(rows: pl.DataFrame, usual: Mapping[str, tuple[float, float]]) -> "Figure":
    """Return R, L, Z and Q over versions, the last of which is the one that is looked at.

    Args:
        rows: of the table of versions, ascending.
        usual: by measure the reference and how far from it is usual: the band that is shaded.
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10, 2.9)
    for axes, name in zip(figure.subplots(1, 4), _MEASURES, strict=True):
        known = rows.filter(pl.col(name).is_not_null())
        if known.is_empty():
            axes.set_title(f"{_MEASURES[name]}:\nnot measured yet", fontsize=9)
            axes.title.set_color(INK)
            axes.set_axis_off()
            continue
        axes.set_title(_MEASURES[name], fontsize=9)
        if name in usual:
            reference, bound = usual[name]
            axes.axhspan(reference - bound, reference + bound, color=GREY, alpha=0.3, linewidth=0)
        _draw_lines(axes, known, name)
        _scatter(axes, known, "version", name)
        newest = known.filter(pl.col("version") == rows["version"].max())
        axes.plot(newest["version"].to_list(), newest[name].to_list(), "o", **_RING)
        finish(axes, "version", "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    return figure


_RING: dict[str, Any] = {
    "markerfacecolor": "none",
    "markeredgecolor": INK,
    "markersize": 13,
    "zorder": 5,
}
_MEASURES = {
    "R": "R, redundancy",
    "L": "L, probe loss (nats per token)",
    "Z": "Z, quality of the model",
    "Q": "Q, quality of the samples",
}


def relation_figure(relation: Relation, title: str) -> bytes | None:
    """Return a PNG of one relation: versions as points, curve with its 95% band where fitted.

    None below two points. Where a blocked version has no y, as it was not trained, a dashed line
    stands at its x. Bars are one spread.
    """
    if relation.points.height < _MIN_POINTS:
        return None
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    if relation.curve is not None:
        draw_curve(axes, relation.curve)
    _scatter(axes, relation.points, relation.x, relation.y)
    untrained = relation.without_y.filter(is_blocked())
    for place, x in enumerate(untrained[relation.x]):
        label = None if place else "risk, blocked and not trained"
        axes.axvline(x, color=RED, linestyle="--", linewidth=1, label=label)
    finish(axes, _label(relation.x, relation.points), _label(relation.y, relation.points))
    legend(axes, loc="upper left", bbox_to_anchor=(1, 1), ncols=1)
    axes.set_title(relation.note, fontsize=9)
    titled(figure, title)
    low, high = axes.get_ylim()
    points = [*relation.points.select("version", relation.x, relation.y).iter_rows()]
    points += [
        (version, x, low + _HEIGHT_OF_LABELS * (high - low))
        for version, x in untrained.select("version", relation.x).iter_rows()
    ]
    if len(points) <= _MAX_LABELS:
        labels = [(f"v{version}", x, y) for version, x, y in points]
        spreads = [_spread(relation.points, name) for name in (relation.x, relation.y)]
        write_labels(axes, labels, *(spread or [] for spread in spreads))
    return png(figure)


def draw_curve(axes: "Axes", curve: Curve) -> None:
    """Draw a fitted curve with its 95% band."""
    axes.fill_between(curve.grid, curve.low, curve.high, color=GREY, alpha=0.3, linewidth=0)
    axes.plot(curve.grid, curve.mean, color=GREY, linewidth=1.6, label=curve.words)


_POINTS_PER_CHARACTER, _LABEL_HEIGHT, _MARKER = 5.5, 9.0, 8.0
# Where a label may stand: its middle in points from the point, the best places first.
_PLACES = tuple((x, y) for far in (12, 22, 32) for y in (9, -9, 0, 18, -18) for x in (far, -far))


def write_labels(
    axes: "Axes",
    labels: Sequence[tuple[str, float, float]],
    x_errors: Sequence[float] = (),
    y_errors: Sequence[float] = (),
) -> None:
    """Write labels beside their points so that they cover neither points nor one another.

    Args:
        axes: whose limits are final.
        labels: words, x and y of each.
        x_errors: half the width of the bars of the first ones, where they have bars.
        y_errors: half the height of these.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # which gives the panels their places
    scale = 72 / figure.dpi
    to_points = axes.transData.transform
    centres = [tuple(to_points((x, y)) * scale) for _, x, y in labels]
    taken = [(x, y, _MARKER, _MARKER) for x, y in centres]
    origin = to_points((0, 0))
    for (x, y), error in zip(centres, x_errors, strict=False):
        taken.append((x, y, 2 * scale * (to_points((error, 0)) - origin)[0], 1))
    for (x, y), error in zip(centres, y_errors, strict=False):
        taken.append((x, y, 1, 2 * scale * (to_points((0, error)) - origin)[1]))
    for (words, x, y), (left, top) in zip(labels, centres, strict=True):
        width = _POINTS_PER_CHARACTER * len(words)
        boxes = [(left + dx, top + dy, width, _LABEL_HEIGHT) for dx, dy in _PLACES]
        hits = [sum(_overlap(box, other) for other in taken) for box in boxes]
        best = hits.index(min(hits))
        taken.append(boxes[best])
        style: dict[str, Any] = {
            "fontsize": 8,
            "ha": "center",
            "va": "center",
            "color": INK,
            "zorder": 4,
        }
        axes.annotate(words, (x, y), xytext=_PLACES[best], textcoords="offset points", **style)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(one[i] - other[i]) < (one[i + 2] + other[i + 2]) / 2 for i in (0, 1))


def versions_figure(table: pl.DataFrame, stage: str, title: str) -> bytes | None:
    """Return a PNG of R, L and Z over the versions of a stage; None below two versions.

    Each measure has a panel where two versions have it. A mark tells the verdict; the band of R and
    L is what was usual by the versions that each was compared with. A line joins the versions of
    one series that were not blocked (of Z: also measured alike); a dotted line marks where the
    probe's settings or the budget changed, so that R and L on its two sides cannot be compared.
    """
    rows = table.filter(pl.col("stage") == stage).sort("version")
    names = [name for name in AXES if len(rows[name].drop_nulls()) >= _MIN_POINTS]
    if not names:
        return None
    figure = new_figure(8.4, 1 + 1.9 * len(names))
    panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    measured = rows.filter(pl.all_horizontal(pl.col("R", "L").is_not_null()))
    usual = {row["version"]: judge(row, rows).numbers for row in measured.iter_rows(named=True)}
    for axes, name in zip(panels, names, strict=True):
        known = rows.filter(pl.col(name).is_not_null())
        if name != "Z":
            _draw_usual(axes, usual, name)
        _draw_lines(axes, known, name)
        _scatter(axes, known, "version", name)
        for border in _borders(rows):
            axes.axvline(border, color=INK, linestyle=":", linewidth=1, label="other settings")
        finish(axes, "", _label(name, known).replace(", ", "\n", 1))
        axes.margins(y=0.2)
    panels[-1].set_xlabel("version", fontsize=9)
    panels[-1].set_xlim(rows["version"][0] - 0.5, rows["version"][-1] + 0.5)
    _whole_numbers(panels[-1], rows["version"].to_list())
    # Each panel knows its own marks; a label that two of them have is told once.
    labels = [
        pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)
    ]
    legend_below(figure, labels)
    titled(figure, title)
    return png(figure)


_NUM_IN_TREND, _TREND_WIDTH, _TREND_HEIGHT = 9, 280, 34


def trend(table: pl.DataFrame, stage: str) -> str | None:
    """Return an SVG of R, L and Z of a stage's latest nine versions, of some 700 characters.

    A line each of what compares with the latest version, whose end has the colour of its verdict;
    None where that is one version alone.
    """
    rows = table.filter(pl.col("stage") == stage).sort("version")
    if rows.is_empty():
        return None
    latest, measured = rows.row(-1, named=True), rows["Z_name"].drop_nulls()
    is_alike = is_named("Z_name", measured[-1] if len(measured) else None)
    rows = (
        rows.filter(is_named("series", latest["series"]))
        .with_columns(Z=pl.when(is_alike).then(pl.col("Z")))
        .filter(pl.col("version") > latest["version"] - _NUM_IN_TREND)
    )
    names = [name for name in AXES if len(rows[name].drop_nulls()) >= _MIN_POINTS]
    if not names:
        return None
    colour = MARKS[latest["verdict"] or ""][1]
    height = _TREND_HEIGHT * len(names)
    lines = "".join(
        _trend_line(
            rows.select("version", name).drop_nulls(), place * _TREND_HEIGHT, latest, colour
        )
        for place, name in enumerate(names)
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_TREND_WIDTH + 90}' height='{height}' "
        f"font-size='11' font-family='sans-serif' fill='{INK}'>{lines}</svg>"
    )


def _trend_line(rows: pl.DataFrame, top: int, latest: Mapping[str, Any], colour: str) -> str:
    name = rows.columns[1]
    versions, values = rows["version"].to_list(), rows[name].to_list()
    low, width = min(values), max(values) - min(values) or 1.0
    first = latest["version"] - _NUM_IN_TREND + 1
    step = _TREND_WIDTH / _NUM_IN_TREND
    points = [
        (round((version - first + 0.5) * step), round(top + 28 - 22 * (value - low) / width))
        for version, value in zip(versions, values, strict=True)
    ]
    path = " ".join(f"{x},{y}" for x, y in points)
    (x, y), is_latest = points[-1], versions[-1] == latest["version"]
    return (
        f"<polyline points='{path}' fill='none' stroke='{INK}'/>"
        f"<circle cx='{x}' cy='{y}' r='4' fill='{colour if is_latest else INK}'/>"
        f"<text x='{_TREND_WIDTH}' y='{top + 21}'>{name} {values[-1]:.4g} (v{versions[-1]})</text>"
    )


def _whole_numbers(axes: "Axes", versions: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    if len(versions) <= _MAX_TICKS:
        axes.set_xticks(versions, [str(version) for version in versions])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=_MAX_TICKS))


_MAX_TICKS = 20


def _draw_usual(axes: "Axes", usual: Mapping[int, Mapping[str, Any]], name: str) -> None:
    """Draw the band in which each version was expected, by the numbers of its verdict."""
    bands = [
        (
            version + end,
            *(numbers[f"{name}_reference"] + numbers[f"{name}_bound"] * np.array([-1, 1])),
        )
        for version, numbers in usual.items()
        if numbers.get(f"{name}_reference") is not None
        for end in (-0.5, 0.5, np.nan)
    ]
    if bands:
        label = "usual, by the versions before"
        ends, low, high = np.array(bands).T
        axes.fill_between(ends, low, high, color=GREY, alpha=0.25, linewidth=0, label=label)


MARKS: Mapping[str, tuple[str, str, str]] = {
    "expected_gain": ("^", GREEN, "expected gain"),
    "no_change": ("o", BLUE, "no change"),
    "first": ("o", GREY, "not compared"),
    "not_comparable": ("o", GREY, "not compared"),
    "law_not_applicable": ("o", GREY, "not compared"),
    "redundancy_warning": ("s", AMBER, "redundancy warning"),
    "consistency_warning": ("D", AMBER, "consistency warning"),
    "risk": ("X", RED, "risk, blocked"),
    "": ("o", GREY, "no verdict yet"),
}
"""Mark, colour and words of each verdict."""


def _scatter(axes: "Axes", rows: pl.DataFrame, x: str, y: str) -> None:
    """Draw versions as points with their spreads; a risk that was let through is a ring."""
    through = pl.col("verdict").eq("risk").fill_null(False) & ~is_blocked()
    for verdict, (marker, colour, words) in MARKS.items():
        group = rows.filter(pl.col("verdict").fill_null("") == verdict, ~through)
        _draw_points(axes, group, x, y, fmt=marker, color=colour, label=words)
    ring = {"fmt": "o", "color": RED, "markerfacecolor": "none", "label": "risk, let through"}
    _draw_points(axes, rows.filter(through), x, y, **ring)


def _draw_points(axes: "Axes", rows: pl.DataFrame, x: str, y: str, **style: Any) -> None:  # noqa: ANN401
    if rows.is_empty():
        return
    axes.errorbar(
        rows[x].to_list(),
        rows[y].to_list(),
        xerr=_spread(rows, x),
        yerr=_spread(rows, y),
        markersize=7,
        elinewidth=1,
        capsize=2,
        zorder=3,
        **style,
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


def _borders(rows: pl.DataFrame) -> Iterable[float]:
    """Yield where the series changes, between two versions."""
    series, versions = rows["series"].to_list(), rows["version"].to_list()
    for place in range(1, rows.height):
        if series[place] != series[place - 1]:
            yield (versions[place] + versions[place - 1]) / 2


def _label(name: str, rows: pl.DataFrame) -> str:
    measured = rows["Z_name"].drop_nulls().unique(maintain_order=True).to_list()
    if name == "Z" and measured:
        # Hashes of the start model and of the samples say nothing at an axis.
        how = measured[0].partition(", start ")[0]
        return literal(
            f"Z, {how}" if len(measured) == 1 else f"Z, measured in {len(measured)} ways"
        )
    return AXES[name]


def finish(axes: "Axes", x_label: str, y_label: str) -> None:
    """Label the axes, and leave room around what is drawn."""
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.margins(0.12)
    clean(axes)
