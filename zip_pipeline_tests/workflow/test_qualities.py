"""Where the quality of a sample comes from: its record, or a file of scores."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import zip_pipeline as zp
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.pool.pool import open_selection_pool
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.qualities import qualities
from zip_pipeline.workflow.versions import current_version, read_version, select_version
from zip_pipeline_tests.pool.pools import store_pool


def records(num: int) -> list[dict[str, Any]]:
    """Return records with a score, and one inside of another field."""
    return [
        {
            "instruction": f"say {n}",
            "output": f"It is {n}.",
            "score": n,
            "meta": {"my score": n / 2},
        }
        for n in range(1, num + 1)
    ]


@pytest.mark.parametrize(("field", "factor"), [("score", 1), ("meta.my score", 0.5)])
def test_quality_is_a_number_of_the_records(field: str, factor: float) -> None:
    """Dots lead into nested fields."""
    selection = zp.select(
        records(9), budget_samples=3, strategy="long_range", mixture="none", quality=field
    )
    ledger = selection.ledger.sort("source_row")
    assert ledger["quality"].to_list() == [row * factor for row in range(1, 10)]
    assert selection.manifest["config"]["quality"] == field


def test_quality_is_a_product_of_numbers() -> None:
    """Two scores of one sample, as quality and complexity are."""
    selection = zp.select(
        records(9), budget_samples=2, strategy="score", quality="score * meta.my score"
    )
    assert selection.ledger.sort("source_row")["quality"].to_list() == [
        row * row / 2 for row in range(1, 10)
    ]
    assert selection.subset["source_row"].to_list() == [9, 8]


def test_scores_below_0_rank_as_well() -> None:
    """As those of reward models; they are only refused where something is multiplied by them."""
    rows = records(9)
    for row in rows:
        row["score"] -= 5
    selection = zp.select(rows, budget_samples=7, strategy="score", quality="score")
    assert selection.subset["source_row"].to_list() == [9, 8, 7, 6, 5, 4, 3]
    del rows[1]["score"]
    with pytest.raises(UserError, match="quality: 1 of 9 samples have no number as score, first"):
        zp.select(rows, budget_samples=7, strategy="score", quality="score")


def test_quality_of_a_pair_is_the_score_of_its_chosen_answer() -> None:
    """Also where it stands in no field of that name, as in a list of ranked answers."""
    rows = [
        {
            "prompt": f"Say {n}.",
            "chosen": [{"role": "assistant", "content": f"It is {n}."}],
            "rejected": [{"role": "assistant", "content": "No."}],
            "score_chosen": n,
            "score_rejected": 1,
        }
        for n in range(2, 9)
    ]
    selection = zp.select(
        rows, stage="preference", budget_samples=3, strategy="score", quality="chosen_score"
    )
    assert selection.subset["chosen_score"].to_list() == [8, 7, 6]
    assert selection.ledger.sort("source_row")["quality"].to_list() == list(range(2, 9))


def test_a_record_without_the_number_is_named() -> None:
    """How many, the first one's place, and what to do."""
    rows = records(5)
    del rows[2]["score"]
    rows[3]["score"] = -1
    with pytest.raises(UserError) as caught:
        zp.select(rows, budget_samples=3, strategy="coverage", quality="score")
    assert str(caught.value).startswith(
        "quality: 2 of 5 samples have no number of 0 and up as score, first records, row 3 (sample "
    )


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_file_of_scores_belongs_to_its_version(tmp_path: Path, suffix: str) -> None:
    """Other scores under the same name make another version; the path starts at the data root."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    with open_selection_pool(folder) as pool:
        ids = pool.index["sample_id"].to_list()

    def write(scores: list[float]) -> None:
        table = pl.DataFrame({"sample_id": ids[::-1], "score": scores[::-1]})
        path = tmp_path / f"scores.{suffix}"
        table.write_parquet(path) if suffix == "parquet" else table.write_csv(path)

    config = SelectionConfig(strategy="coverage", budget_samples=5, quality=f"scores.{suffix}")
    scores = [float(place) for place in range(len(ids))]
    write(scores)
    version = read_version(folder, select_version(folder, config, print))
    assert version.ledger["quality"].drop_nulls().to_list() == scores
    assert current_version(folder, config) == 1
    write(scores[::-1])
    assert current_version(folder, config) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "quality: .*scores.csv: No such file or directory; give a file of scores"),
        ("id,value\na,1\n", "quality: .*scores.csv: no readable table with the columns sample_id"),
        ("sample_id,score\na,1\n", "quality: 20 of 20 samples have no number of 0 and up as sco"),
    ],
)
def test_a_wrong_file_of_scores_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    """Missing, without the columns, or of other samples."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    if content is not None:
        (tmp_path / "scores.csv").write_text(content)
    config = SelectionConfig(strategy="coverage", budget_samples=5, quality="scores.csv")
    with pytest.raises(UserError, match=message):
        select_version(folder, config, print)


def test_quality_that_nobody_heeds_is_not_read(tmp_path: Path) -> None:
    """As when one configuration serves several strategies."""
    folder = DataRoot(tmp_path)["sft"]
    store_pool(folder)
    config = SelectionConfig(strategy="random", budget_samples=5, quality="no such field")
    with open_selection_pool(folder) as pool:
        assert qualities(pool, config) is None
