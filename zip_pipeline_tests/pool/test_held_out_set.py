"""Rules of the file of held-out samples, also where a person put it there."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.pool.held_out import read_held_out
from zip_pipeline.pool.pool import assemble_pool
from zip_pipeline.samples import PreferencePair, Turn, frame_of, sample_columns, sample_id
from zip_pipeline_tests.pool.files import drop_sums, write


def own_file(root: DataRoot, samples: pl.DataFrame) -> Path:
    """Put a person's own table in place."""
    path = root["sft"].held_out
    path.parent.mkdir(exist_ok=True)
    samples.write_parquet(path)
    return path


def test_a_file_that_a_person_put_there_is_used_as_it_is(tmp_path):
    """Their samples stay out of the pool; further columns and foreign samples do no harm."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(40))
    drop_sums(root, "elsewhere", range(35, 45))
    samples = assemble_pool(root["sft"]).samples
    root["sft"].samples("elsewhere.jsonl").unlink()
    own_file(root, samples.tail(8).with_columns(rank=pl.lit(1)))
    frozen = read_held_out(root["sft"])
    assert frozen is not None
    assert frozen.samples.equals(samples.tail(8))
    pool = assemble_pool(root["sft"])
    assert pool.samples["sample_id"].equals(samples["sample_id"].head(37))
    assert pool.num_held_out == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop("raw"), "the column raw is missing, must be String"),
        (
            lambda t: t.with_columns(pl.col("source_row").cast(pl.String)),
            "the column source_row is String, must be Int64",
        ),
        (
            lambda t: t.with_columns(source=pl.lit(None, pl.String)),
            "the column source has empty cells",
        ),
        (
            lambda t: t.with_columns(turns=pl.lit(None, t.schema["turns"])),
            "the column turns has empty cells",
        ),
        (lambda t: pl.concat([t, t]), "the column sample_id has an id twice"),
        (
            lambda t: t.with_columns(sample_id=pl.lit("mine")),
            "the column sample_id has 'mine' in row 1, where the turns make '",
        ),
    ],
)
def test_a_table_of_held_out_samples_that_is_wrong_is_refused(tmp_path, change, message):
    """The error names file and column; a made-up id would let its sample into the pool."""
    root = DataRoot(tmp_path)
    drop_sums(root, "a", range(1))
    path = own_file(root, change(assemble_pool(root["sft"]).samples))
    with pytest.raises(ValueError) as caught:
        assemble_pool(root["sft"])
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "give rows of pool/<stage>/<batch>.parquet" in str(caught.value)


def test_a_file_of_held_out_samples_that_is_no_table_is_refused(tmp_path):
    """Anything but Parquet is an error with the remedy."""
    root = DataRoot(tmp_path)
    path = write(root["sft"].held_out, b"sample_id\n1\n")
    with pytest.raises(ValueError) as caught:
        assemble_pool(root["sft"])
    assert str(caught.value).startswith(f"{path}: cannot be read (")


def test_pairs_are_held_out_by_a_persons_file_too(tmp_path):
    """The ids of preference pairs are checked by their three groups of turns."""
    pair = PreferencePair((Turn("user", "q"),), (Turn("assistant", "y"),), (Turn("x", "n"),))
    row = {"sample_id": sample_id(pair), "source": "s"} | sample_columns(pair)
    root = DataRoot(tmp_path)
    root["preference"].held_out.parent.mkdir()
    frame_of("preference", [row]).write_parquet(root["preference"].held_out)
    frozen = read_held_out(root["preference"])
    assert frozen is not None
    assert frozen.samples["sample_id"].to_list() == [sample_id(pair)]
    row["sample_id"] = sample_id(PreferencePair(pair.prompt, pair.rejected, pair.chosen))
    frame_of("preference", [row]).write_parquet(root["preference"].held_out)
    with pytest.raises(ValueError, match="column sample_id has"):
        read_held_out(root["preference"])
