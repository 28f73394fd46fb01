"""The law's pictures."""

import io

import numpy as np
import polars as pl
import pytest
from matplotlib import image

from zip_pipeline.entropy_law.fit import relations
from zip_pipeline.report.figures import relation_figure, versions_figure
from zip_pipeline_tests.entropy_law.tables import series_of, version_row, versions

TRAINED, BLOCKED, BAND = "#1f6fb2", "#c0392b", "#a9afb9"


def _pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n")
    return np.asarray(image.imread(io.BytesIO(png), format="png"))


def _num_pixels(png: bytes, colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(_pixels(png)[..., :3] * 255 - wanted) < 2).all(axis=-1).sum())


def _table(num: int) -> pl.DataFrame:
    """Return ``num`` trained versions, and a last one that was blocked."""
    ratios = [3.0 + 0.1 * (i % 4) for i in range(num)]
    table = series_of(ratios, [r / 2 for r in ratios], verdict="no_change")
    blocked = versions(version_row(num + 1, R=5.0, L=2.5, verdict="risk"))
    return pl.concat([table.with_columns(Z=7 - pl.col("R"), Z_name=pl.lit("held-out $")), blocked])


def test_relation_figure_draws_points_curve_and_blocked_versions():
    """Points are blue, the curve grey, and a blocked version red, trained or not."""
    of_quality, _, of_ratio = relations(_table(8), "sft")
    for found in (of_quality, of_ratio):
        png = relation_figure(found, "$a$ ^ $title")
        assert _num_pixels(png, TRAINED) > 300
        assert _num_pixels(png, BLOCKED) > 5
        assert _num_pixels(png, BAND) > 100
    kept = relations(_table(8).head(8), "sft")[0]
    assert _num_pixels(relation_figure(kept, "no blocked version"), BLOCKED) == 0
    few = relation_figure(relations(_table(3), "sft")[0], "few")
    assert _num_pixels(few, TRAINED) > 100
    assert _num_pixels(few, BAND) == 0


def test_versions_figure_draws_three_panels():
    """Trained and blocked versions are seen, and one let through is a red ring."""
    plain = versions_figure(_table(4), "sft", "title")
    assert _num_pixels(plain, TRAINED) > 500
    assert _num_pixels(plain, BLOCKED) > 150
    more = versions(version_row(6, R=4.5, L=2.4, verdict="risk", override="Ada", series="t"))
    through = versions_figure(pl.concat([_table(4), more]), "sft", "title")
    assert _num_pixels(through, BLOCKED) > _num_pixels(plain, BLOCKED)


def test_versions_figure_joins_only_what_was_measured_alike():
    """Z of another start model or of other samples is a point that no line reaches."""
    alike = versions(*(version_row(n, Z=-float(n), Z_name="a") for n in range(1, 5)))
    apart = versions(*(version_row(n, Z=-float(n), Z_name=str(n)) for n in range(1, 5)))
    joined, single = (_num_pixels(versions_figure(t, "sft", "t"), BAND) for t in (alike, apart))
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
        pytest.param(versions(version_row(1, R=None, L=None)), id="nothing measured"),
        pytest.param(versions(version_row(1, series=None, R_spread=None)), id="no series"),
        pytest.param(series_of([3.0] * 60, [1.5] * 60), id="many that do not vary"),
        pytest.param(versions(version_row(1, verdict="risk")), id="all blocked"),
    ],
)
def test_figures_draw_odd_tables(table: pl.DataFrame):
    """No table is too small or too odd for a picture."""
    assert _pixels(versions_figure(table, "sft", "odd")).size
    found = relations(table, "sft")
    assert len(found) == 3
    for one in found:
        assert _pixels(relation_figure(one, "odd")).size
