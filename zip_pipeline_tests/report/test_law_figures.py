"""The law's pictures."""

import io
import random
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib import image
from matplotlib.text import Annotation

from zip_pipeline.defs.metadata import drawing
from zip_pipeline.entropy_law.fit import relations
from zip_pipeline.entropy_law.verdict import Verdict, judge
from zip_pipeline.report import figures
from zip_pipeline.report.figures import (
    BLUE,
    GREEN,
    GREY,
    RED,
    new_figure,
    png,
    relation_figure,
    standing_figure,
    trend,
    versions_figure,
    write_labels,
)
from zip_pipeline_tests.entropy_law.tables import series_of, version_row, versions


def _pixels(picture: bytes | None) -> np.ndarray:
    assert picture is not None
    assert picture.startswith(b"\x89PNG\r\n")
    return np.asarray(image.imread(io.BytesIO(picture), format="png"))


def _num_pixels(picture: bytes | None, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = _pixels(picture)
    is_seen = (np.abs(pixels[..., :3] * 255 - wanted) < 2).all(axis=-1) & (pixels[..., 3] > 0.5)
    return int(is_seen.sum())


def _is_banded(picture: bytes | None) -> bool:
    """Return whether a wide area is half clear, as bands are."""
    alpha = _pixels(picture)[..., 3]
    return int(((alpha > 0.2) & (alpha < 0.35)).sum()) > 1_000


def _table(num: int) -> pl.DataFrame:
    """Return ``num`` trained versions, and a last one that was blocked."""
    ratios = [3.0 + 0.1 * (i % 4) for i in range(num)]
    table = series_of(ratios, [r / 2 for r in ratios], verdict="no_change")
    blocked = versions(version_row(num + 1, R=5.0, L=2.5, verdict="risk"))
    return pl.concat([table.with_columns(Z=7 - pl.col("R"), Z_name=pl.lit("held-out $")), blocked])


def test_relation_figure_draws_points_curve_and_blocked_versions():
    """Points have the colour of their verdict, and a blocked version is red, trained or not."""
    of_quality, _, of_ratio = relations(_table(8), "sft")
    for found in (of_quality, of_ratio):
        picture = relation_figure(found, "$a$ ^ $title")
        assert _num_pixels(picture, BLUE) > 300
        assert _num_pixels(picture, RED) > 5
        assert _num_pixels(picture, GREY) > 100
        assert _is_banded(picture)
    kept = relations(_table(8).head(8), "sft")[0]
    assert _num_pixels(relation_figure(kept, "no blocked version"), RED) == 0
    few = relation_figure(relations(_table(3), "sft")[0], "few")
    assert _num_pixels(few, BLUE) > 100
    assert not _is_banded(few)


def test_labels_cover_neither_points_nor_one_another():
    """Twelve points in two heaps, as matplotlib places them."""
    place = random.Random(3)
    points = [(x + place.random() / 20, place.random() / 20) for x in [0.2] * 6 + [0.7] * 6]
    figure = new_figure(6, 4)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(-0.2, 0.2))
    axes.plot(*zip(*points, strict=True), "o", markersize=7)
    write_labels(axes, [(f"v{n}", x, y) for n, (x, y) in enumerate(points)])
    png(figure)
    boxes = [t.get_window_extent() for t in axes.texts if isinstance(t, Annotation)]
    assert len(boxes) == 12
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]
    marks = [axes.transData.transform(point) for point in points]
    assert not [1 for box in boxes for x, y in marks if box.contains(x, y)]


def test_versions_figure_draws_a_panel_of_each_measure():
    """Trained and blocked versions are seen, and one let through is a red ring."""
    plain = versions_figure(_table(4), "sft", "title")
    assert _num_pixels(plain, BLUE) > 500
    assert _num_pixels(plain, RED) > 150
    more = versions(version_row(6, R=4.5, L=2.4, verdict="risk", override="Ada", series="t"))
    through = versions_figure(pl.concat([_table(4), more]), "sft", "title")
    assert _num_pixels(through, RED) > _num_pixels(plain, RED)
    without_z = versions_figure(_table(4).with_columns(Z=pl.lit(None, pl.Float64)), "sft", "title")
    assert _pixels(without_z).shape[0] < _pixels(plain).shape[0]


def test_versions_figure_shows_verdicts_and_what_was_usual():
    """A gain is green; the band is there where something could be compared."""
    table = series_of([3.0, 3.1, 2.9, 3.0], [1.5, 1.6, 1.4, 1.5], verdict="no_change")
    assert _is_banded(versions_figure(table, "sft", "t"))
    assert _num_pixels(versions_figure(table, "sft", "t"), GREEN) == 0
    gain = table.with_columns(verdict=pl.lit("expected_gain"))
    assert _num_pixels(versions_figure(gain, "sft", "t"), GREEN) > 300
    apart = table.with_columns(series=pl.col("version").cast(pl.String))
    assert not _is_banded(versions_figure(apart, "sft", "t"))


def test_trend_is_small_and_of_what_compares():
    """A drawing of the latest nine versions that fits into what the UI shows with no click."""
    table = series_of([3.0 + n / 7 for n in range(20)], [1.5] * 20, verdict="no_change")
    table = table.with_columns(Z=-pl.col("R"), Z_name=pl.lit("one"))
    svg = trend(table, "sft")
    assert svg is not None
    assert len(svg) < 850
    assert len(drawing(svg, "sft: R, L and Z").value) < 1_000
    root = ElementTree.fromstring(svg)
    assert ["".join(text.itertext()) for text in root if text.tag.endswith("text")] == [
        "R 5.714 (v20)",
        "L 1.5 (v20)",
        "Z -5.714 (v20)",
    ]
    lines = [line.attrib["points"].split() for line in root if "points" in line.attrib]
    assert [len(line) for line in lines] == [9, 9, 9]
    heights = [int(point.split(",")[1]) for point in lines[0]]
    assert heights == sorted(heights, reverse=True)
    assert svg.count(BLUE) == 3
    apart = table.with_columns(series=pl.when(pl.col("version") < 20).then(pl.col("series")))
    assert trend(apart, "sft") is None
    assert trend(table.head(1), "sft") is None
    assert trend(table.clear(), "sft") is None


def test_versions_figure_joins_only_what_was_measured_alike():
    """Z of another start model or of other samples is a point that no line reaches."""
    rows = [version_row(n, Z=-float(n), Z_name="a", verdict="no_change") for n in range(1, 5)]
    alike = versions(*rows)
    apart = versions(*(row | {"Z_name": str(row["version"])} for row in rows))
    joined, single = (_num_pixels(versions_figure(t, "sft", "t"), GREY) for t in (alike, apart))
    assert joined > single


def test_figures_of_the_same_table_are_the_same():
    """The same table gives the same bytes."""
    assert versions_figure(_table(5), "sft", "t") == versions_figure(_table(5), "sft", "t")
    one, other = (relation_figure(relations(_table(6), "sft")[1], "t") for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(versions(), id="empty"),
        pytest.param(versions(version_row(1)), id="one version"),
        pytest.param(versions(*(version_row(n, R=None, L=None) for n in (1, 2))), id="no measure"),
    ],
)
def test_figures_of_fewer_than_two_points_are_not_drawn(table: pl.DataFrame):
    """Nothing is seen in one point."""
    assert versions_figure(table, "sft", "few") is None
    assert [relation_figure(one, "few") for one in relations(table, "sft")] == [None] * 3


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(versions(*(version_row(n, series=None) for n in (1, 2))), id="no series"),
        pytest.param(series_of([3.0] * 60, [1.5] * 60), id="many that do not vary"),
        pytest.param(versions(*(version_row(n, verdict="risk") for n in (1, 2))), id="all blocked"),
    ],
)
def test_figures_draw_odd_tables(table: pl.DataFrame):
    """From two points on no table is too odd for a picture."""
    assert _pixels(versions_figure(table, "sft", "odd")).size
    of_ratio = relations(table, "sft")[2]
    assert _pixels(relation_figure(of_ratio, "odd")).size


def test_each_version_is_judged_once_in_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict reads all versions before: of hundreds that is seconds of each night."""
    judged: list[int] = []

    def counted(new: Mapping[str, Any], earlier: pl.DataFrame) -> Verdict:
        judged.append(new["version"])
        return judge(new, earlier)

    monkeypatch.setattr(figures, "judge", counted)
    assert versions_figure(_table(4), "sft", "title") is not None
    assert judged == _table(4)["version"].to_list()


@pytest.mark.parametrize("num", [1, 2, 3])
def test_a_few_versions_have_whole_numbers(num: int) -> None:
    """Below the first one, too, there is no version 0.95."""
    figure = standing_figure(series_of([3.0, 3.1, 3.2][:num], [1.0, 1.1, 1.2][:num]), {})
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert shown == list(range(1, num + 1))
