"""What the runs of a comparison come to: means, paired differences, one sentence, a figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from zip_pipeline.entropy_law.fit import LAW_RELATIONS, Relation, relation
from zip_pipeline.report.figures import (
    AXES,
    BLUE,
    COLOURS,
    GREY,
    INK,
    clean,
    draw_curve,
    finish,
    legend_below,
    literal,
    new_figure,
    png,
    svg,
    titled,
)
from zip_pipeline.report.markdown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

YARDSTICK = "random+natural"
"""Source-balanced random: each source at its share of the pool."""
Measure: TypeAlias = Literal["target", "unseen", "seen"]
WHERE: Mapping[Measure, str] = {
    "target": "on the part of the target that no strategy was told of",
    "unseen": "on unseen sources",
    "seen": "on held-out samples of the sources that are trained on",
}
# Student's t at 97.5% by degrees of freedom; a comparison has at most five seeds.
_T = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645}
_CHEAPER = 0.5


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences over seeds, with its 95% interval; negative = better."""

    mean: float
    low: float
    high: float


def difference(runs: pl.DataFrame, strategy: str, other: str, figure: str) -> Difference | None:
    """Return how much a figure of a strategy is above that of another, seed by seed.

    Args:
        runs: one row per strategy and seed.
        strategy: the one.
        other: the other.
        figure: the column.

    Returns:
        Mean and t-interval of the differences over the seeds that both have; None below two.
    """
    pairs = _of(runs, strategy).join(_of(runs, other), on="seed", suffix="_other")
    values = (pairs[figure] - pairs[f"{figure}_other"]).drop_nulls().to_list()
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = _T[len(values) - 1] * math.sqrt(variance / len(values))
    return Difference(mean, mean - half, mean + half)


def _of(runs: pl.DataFrame, strategy: str) -> pl.DataFrame:
    return runs.filter(pl.col("strategy") == strategy)


def loss_names(runs: pl.DataFrame) -> list[str]:
    """Return the columns of the losses in nats."""
    return [name for name in runs.columns if name.endswith("_loss")]


def strategies_of(runs: pl.DataFrame) -> list[str]:
    """Return the strategies, the yardstick first, then by name."""
    return sorted(set(runs["strategy"]), key=lambda name: (name != YARDSTICK, name))


def summary(runs: pl.DataFrame) -> pl.DataFrame:
    """Return one row per strategy: number of seeds, means, and differences to the yardstick.

    Of each loss there are ``<loss>_difference``, ``_low`` and ``_high``, null below two seeds.
    """
    rows = []
    for name in strategies_of(runs):
        own = _of(runs, name)
        row: dict[str, object] = {"strategy": name, "num_seeds": own.height}
        row |= own.select(pl.exclude("strategy", "seed").mean()).row(0, named=True)
        for loss in loss_names(runs):
            found = None if name == YARDSTICK else difference(runs, name, YARDSTICK, loss)
            row |= {
                f"{loss}_difference": found and found.mean,
                f"{loss}_low": found and found.low,
                f"{loss}_high": found and found.high,
            }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def conclusion(runs: pl.DataFrame, measure: Measure) -> str:
    """Return the sentence to act on.

    The strategy is chosen by ``<measure>_choice_loss`` and judged by ``<measure>_loss``, which
    is of other samples.
    """
    judged = f"{measure}_loss"
    best = next(iter(_ranked(runs, measure)), "")
    found = difference(runs, best, YARDSTICK, judged)
    if found is None:
        return (
            f"Nothing can be said yet: that takes two seeds each of {YARDSTICK} and of another "
            "strategy."
        )
    mean, low, high = found.mean, found.low, found.high
    if high < 0:
        place = "pool and target" if measure == "target" else "pool"
        return (
            f"On your {place}, {best} beats source-balanced random by {-mean:.3f} nats "
            f"(95% {-high:.3f} to {-low:.3f}) {WHERE[measure]}{_cheaper(runs, best, judged)}."
        )
    words = f"differs by {mean:+.3f} nats (95% {low:+.3f} to {high:+.3f}), as noise may,"
    if low > 0:
        words = f"is {mean:.3f} nats worse (95% {low:.3f} to {high:.3f})"
    return (
        f"Nothing beats source-balanced random here: {best}, which did best on the samples to "
        f"choose by, {words} {WHERE[measure]}."
    )


def _ranked(runs: pl.DataFrame, measure: Measure) -> list[str]:
    """Return the strategies beside the yardstick, best on the samples to choose by first."""
    others = [name for name in strategies_of(runs) if name != YARDSTICK]
    each = {name: difference(runs, name, YARDSTICK, f"{measure}_choice_loss") for name in others}
    means = {name: one.mean for name, one in each.items() if one is not None}
    return sorted(means, key=lambda name: (means[name], name))


def winner(runs: pl.DataFrame, measure: Measure) -> str | None:
    """Return the strategy to use: the best one where it beats the yardstick, else the yardstick.

    None where nothing can be said yet.
    """
    best = next(iter(_ranked(runs, measure)), "")
    found = difference(runs, best, YARDSTICK, f"{measure}_loss")
    if found is None:
        return None
    return best if found.high < 0 else YARDSTICK


def beside_second(runs: pl.DataFrame, measure: Measure) -> str | None:
    """Return by how much the winner is better than the second best, and whether noise may be why.

    None where no other strategy than the yardstick was compared with it, or the yardstick wins.
    """
    ranked = _ranked(runs, measure)
    if winner(runs, measure) == YARDSTICK or len(ranked) < 2:
        return None
    best, second = ranked[:2]
    found = difference(runs, best, second, f"{measure}_loss")
    if found is None:
        return f"{second} came second to {best}; they have no two seeds in common to compare."
    difference_words = f"{found.mean:+.3f} nats (95% {found.low:+.3f} to {found.high:+.3f})"
    if found.high < 0:
        return f"{second} came second: {best} differs from it by {difference_words}, beyond noise."
    return (
        f"{second} came second: {best} differs from it by {difference_words}, as noise may; more "
        "seeds or evaluation samples would tell."
    )


def words_of_skips(skipped: Mapping[str, str]) -> list[str]:
    """Return why there are no runs, once for each strategy and reason.

    Args:
        skipped: the reason by STRATEGY-SEED.
    """
    seeds: dict[tuple[str, str], list[str]] = {}
    for run, reason in skipped.items():
        name, _, seed = run.rpartition("-")
        seeds.setdefault((name, reason), []).append(seed)
    return [
        f"{name}, {'seed' if len(of_name) == 1 else 'seeds'} {', '.join(of_name)}: {reason}"
        for (name, reason), of_name in seeds.items()
    ]


def _cheaper(runs: pl.DataFrame, best: str, loss: str) -> str:
    """Return which strategy selects in half the time and cannot be told from the best."""
    seconds = dict(runs.group_by("strategy").agg(pl.mean("selection_seconds")).iter_rows())
    for name in sorted(seconds, key=lambda name: (seconds[name], name)):
        found = difference(runs, name, best, loss)
        is_cheap = seconds[name] <= _CHEAPER * seconds[best]
        if is_cheap and name not in (best, YARDSTICK) and found and found.low <= 0 <= found.high:
            return f"; {name} is cheaper and within noise of it"
    return ""


_Columns: TypeAlias = Mapping[str, tuple[str, str]]
_OF_PAPER: _Columns = {
    "tokens": ("num_tokens", ",.0f"),
    "targets": ("num_target_tokens", ",.0f"),
    "samples": ("num_samples", ",.0f"),
    "mean tokens": ("mean_tokens", ",.0f"),
    "Q": ("Q", ".3f"),
    "seconds": ("selection_seconds", ".2f"),
    "Z": ("Z", ".3f"),
}
_OF_SUBSET: _Columns = {
    "R": ("R", ".3f"),
    "L": ("L", ".3f"),
    "distinct 3": ("distinct_3", ".3f"),
    "Vendi": ("vendi", ".1f"),
    "NovelSum": ("novelsum", ".3f"),
}


def shown_tables(table: pl.DataFrame, measure: Measure) -> list[Shown]:
    """Return header and cells of three tables for people from :func:`summary`.

    The first has the losses, that which decides before the others. The second is that of the paper,
    with ``mean tokens`` of a sample, the quality ``Q``, ``seconds`` of selecting, and of pairs the
    accuracy; the third tells how redundant and how diverse the subsets are.

    Source: ZIP (arXiv 2407.06645), table 1 for SFT and table 2 for preference.
    """
    losses = [f"{name}_loss" for name in dict.fromkeys((measure, *WHERE))]
    losses = [name for name in losses if name in table]
    of_loss = [(name.replace("_", " "), "difference ± 95%") for name in losses]
    first = ["strategy", "seeds", *(name for pair in of_loss for name in pair)]
    rows = []
    for row in table.iter_rows(named=True):
        cells = [(f"{row[loss]:.3f}", _interval(row, loss)) for loss in losses]
        rows.append([row["strategy"], str(row["num_seeds"]), *(c for pair in cells for c in pair)])
    accuracy = f"{measure}_accuracy"
    of_pairs: _Columns = {"accuracy": (accuracy, ".1%")} if accuracy in table.columns else {}
    of_paper = _shown(table, {**_OF_PAPER, **of_pairs})
    return [(first, rows), of_paper, _shown(table, _OF_SUBSET)]


def _shown(table: pl.DataFrame, columns: _Columns) -> Shown:
    rows = [
        [row["strategy"], *(_cell(row[name], how) for name, how in columns.values())]
        for row in table.iter_rows(named=True)
    ]
    return ["strategy", *columns], rows


def _cell(value: float | None, how: str) -> str:
    return "unknown" if value is None else f"{value:{how}}"


def law_relations(runs: pl.DataFrame) -> list[Relation]:
    """Return how Z, R and L hang together over the runs as they come: each is a point.

    The law expects that Z falls as R and L rise.
    """
    return [relation(runs, x, y) for x, y in LAW_RELATIONS]


def law_table(relations: Sequence[Relation], measure: Measure) -> Shown:
    """Return header and cells of :func:`law_relations` for people."""
    header = [f"entropy law (Z: {measure} loss, negated)", "over all runs"]
    return header, [[f"{one.y} over {one.x}", one.note] for one in relations]


def overlap(picks: pl.DataFrame) -> pl.DataFrame:
    """Return by how much each two strategies agree: common picks over all picks of both.

    Args:
        picks: ``strategy``, ``seed`` and ``sample_id``, a row for each pick.

    Returns:
        ``strategy``, and a column for each strategy: 0 to 1, the mean over the seeds of both; null
        where they have none in common.
    """
    names = strategies_of(picks)
    sets = {
        (name, seed): set(ids)
        for name, seed, ids in picks.group_by("strategy", "seed").agg("sample_id").iter_rows()
    }
    seeds = sorted(set(picks["seed"]))

    def agreement(one: str, other: str) -> float | None:
        pairs = [(sets.get((one, seed)), sets.get((other, seed))) for seed in seeds]
        shares = [len(a & b) / len(a | b) for a, b in pairs if a and b]
        return sum(shares) / len(shares) if shares else None

    columns = {other: [agreement(one, other) for one in names] for other in names}
    shares = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.Float64))
    return shares.select(pl.Series("strategy", names), *names)


def overlap_table(shares: pl.DataFrame) -> Shown:
    """Return header and cells of :func:`overlap` for people."""
    rows = [
        [name, *("" if share is None else f"{share:.0%}" for share in row)]
        for name, *row in shares.iter_rows()
    ]
    return ["picks in common", *shares.columns[1:]], rows


NUM_ALONE = 10


def picked_alone(picks: pl.DataFrame) -> pl.DataFrame:
    """Return the first ten samples of the lowest seed that one strategy alone picked.

    Args:
        picks: as :func:`overlap` takes them, in pick order, with any other columns.
    """
    of_seed = picks.filter(pl.col("seed") == pl.col("seed").min())
    alone = of_seed.filter(pl.len().over("sample_id") == 1)
    first = alone.filter(pl.int_range(pl.len()).over("strategy") < NUM_ALONE)
    return first.sort("strategy", maintain_order=True)


def _interval(row: Mapping[str, float | None], loss: str) -> str:
    mean, high = row[f"{loss}_difference"], row[f"{loss}_high"]
    return "" if mean is None or high is None else f"{mean:+.3f} ± {high - mean:.3f}"


Drawn: TypeAlias = tuple[bytes, bytes]
"""A figure as PNG and as SVG."""


def comparison_figure(runs: pl.DataFrame, table: pl.DataFrame, title: str) -> Drawn | None:
    """Return per loss the differences to the yardstick; None where there is nothing beside it."""
    measures = [name for name in WHERE if f"{name}_loss" in table]
    names = [name for name in table["strategy"].to_list() if name != YARDSTICK][::-1]
    if not names or YARDSTICK not in table["strategy"]:
        return None
    figure = new_figure(4.2 * len(measures) + 1.5, 2 + 0.35 * len(names))
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        loss = f"{measure}_loss"
        axes.axvline(0, color=INK, linewidth=1)
        for place, name in enumerate(names):
            _draw_differences(axes, runs, name, loss, place)
        axes.set_title("\n".join(wrap(WHERE[measure], 44)), fontsize=9)
        axes.set_xlabel(f"nats above {YARDSTICK}, lower is better", fontsize=9)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_yticks(range(len(names)), [literal(name) for name in names])
        clean(axes)
    legend_below(figure, zip(*panels[0].get_legend_handles_labels(), strict=True))
    titled(figure, title)
    return _drawn(figure)


def _draw_differences(axes: "Axes", runs: pl.DataFrame, name: str, loss: str, place: int) -> None:
    pairs = _of(runs, name).join(_of(runs, YARDSTICK), on="seed", suffix="_other")
    seeds = (pairs[loss] - pairs[f"{loss}_other"]).to_list()
    at = [place] * len(seeds)
    axes.plot(seeds, at, "o", color=GREY, markersize=4, zorder=3, label="one seed")
    if found := difference(runs, name, YARDSTICK, loss):
        bar = [[found.mean - found.low], [found.high - found.mean]]
        label = "mean, 95% interval"
        axes.errorbar([found.mean], [place], xerr=bar, fmt="o", color=BLUE, lw=2, ms=7, label=label)


_MARKERS = "osD^v"


def law_figure(relations: Sequence[Relation], measure: Measure, title: str) -> Drawn | None:
    """Return :func:`law_relations`: a panel each, a point per strategy and seed.

    A curve with its 95% band stands where the relation has one; None where there is one run alone.

    Source: ZIP (arXiv 2407.06645), figures 3 and 4.
    """
    relations = [one for one in relations if one.points.height > 1]
    if not relations:
        return None
    figure = new_figure(4.4 * len(relations), 5)
    panels = figure.subplots(1, len(relations), squeeze=False)[0]
    names = {**AXES, "Z": f"Z, {measure} loss negated, nats"}
    for axes, one in zip(panels, relations, strict=True):
        _draw_runs(axes, one)
        finish(axes, names[one.x], names[one.y])
        words = [one.note.replace(" (", "\n("), *([one.curve.words] if one.curve else [])]
        axes.set_title("\n".join(words), fontsize=9)
    # The points are the same in all panels; the curves follow, as the titles tell of them.
    legend_below(figure, zip(*panels[0].get_legend_handles_labels(), strict=True))
    for axes, one in zip(panels, relations, strict=True):
        if one.curve is not None:
            draw_curve(axes, one.curve)
    titled(figure, title)
    return _drawn(figure)


def _draw_runs(axes: "Axes", found: Relation) -> None:
    for number, name in enumerate(strategies_of(found.points)):
        rows = _of(found.points, name)
        axes.plot(
            rows[found.x].to_list(),
            rows[found.y].to_list(),
            _MARKERS[number // len(COLOURS) % len(_MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            markersize=6,
            label=literal(name),
            zorder=3,
        )


def _drawn(figure: "Figure") -> Drawn:
    """Return a figure as PNG and as SVG."""
    return png(figure), svg(figure, "comparison")
