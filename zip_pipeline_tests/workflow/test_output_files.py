"""The three files of a selection."""

import json
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.workflow.output_files import OutputFiles, write_records

_LEDGER = pl.DataFrame({"sample_id": ["a"], "fate": ["picked"]})


def _publish(files: OutputFiles, text: str) -> None:
    with files.open(resume=False):
        _publish_opened(files, text)


def _publish_opened(files: OutputFiles, text: str) -> None:
    content: dict[str, object] = {"text": text, "output": files.out.name}
    files.publish(lambda path: path.write_text(text), _LEDGER, lambda: content)


def test_output_files_stand_beside_out_under_its_stem(tmp_path: Path):
    """Ledger, manifest and checkpoint are named after OUT."""
    files = OutputFiles(tmp_path / "my.subset.jsonl")
    assert files.ledger.name == "my.subset.ledger.parquet"
    assert files.manifest.name == "my.subset.manifest.json"
    assert files.checkpoint == tmp_path / ".my.subset.checkpoint" / "selection"


def test_publish_writes_all_three_and_nothing_else(tmp_path: Path):
    """After publishing only the three files are there."""
    _publish(OutputFiles(tmp_path / "new" / "x.json"), "[]")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["x.json", "x.ledger.parquet", "x.manifest.json"]


def test_publish_replaces_an_older_selection(tmp_path: Path):
    """A second selection replaces the first one whole."""
    files = OutputFiles(tmp_path / "x.json")
    _publish(files, "old")
    _publish(files, "new")
    assert files.out.read_text() == "new"
    assert json.loads(files.manifest.read_text()) == {"text": "new", "output": "x.json"}


def test_publish_keeps_the_older_selection_when_writing_fails(tmp_path: Path):
    """When the new files cannot be completed the old ones stay, all three."""
    files = OutputFiles(tmp_path / "x.json")
    _publish(files, "old")

    def fail() -> dict[str, object]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), files.open(resume=False):
        files.publish(lambda path: path.write_text("new"), _LEDGER, fail)
    assert files.out.read_text() == "old"
    assert json.loads(files.manifest.read_text()) == {"text": "old", "output": "x.json"}


def test_open_drops_a_stale_checkpoint_unless_resuming(tmp_path: Path):
    """Only --resume keeps what an earlier run left, and of that only checkpoints and shards."""
    files = OutputFiles(tmp_path / "x.json")
    with files.open(resume=False):
        files.checkpoint.write_text("state")
        (files.work / "x.json").write_text("staged by a run that was killed")
        (files.work / "sft-0.shards").mkdir()
        (files.work / "pool-x" / "pool").mkdir(parents=True)
        (files.work / "pool-x" / "pool" / "a.parquet").touch()
    with files.open(resume=True):
        kept = {path.name for path in files.work.iterdir()}
        assert kept == {"selection", "sft-0.shards", ".zip-pipeline"}
    with files.open(resume=False):
        assert [path.name for path in files.work.iterdir()] == [".zip-pipeline"]
    assert not files.work.exists()


def test_open_refuses_a_second_selection_with_one_out(tmp_path: Path):
    """The second one says so, and the work of the first stays, whatever OUT's ending is."""
    files = OutputFiles(tmp_path / "x.json")
    with files.open(resume=False):
        files.checkpoint.write_text("state")
        for name in ("x.json", "x.parquet"):
            other = OutputFiles(tmp_path / name)
            message = f"a selection with the output .*{name} is running already; wait"
            with pytest.raises(ValueError, match=message), other.open(resume=False):
                pass
        assert files.checkpoint.read_text() == "state"
        _publish_opened(files, "first")
    assert files.out.read_text() == "first"


def test_open_refuses_a_work_folder_that_is_a_link_or_not_its_own(tmp_path: Path):
    """Where the hidden folder is somebody else's, nothing in it or behind it goes away."""
    files, mine = OutputFiles(tmp_path / "x.json"), tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    files.work.symlink_to(mine)
    for _ in range(2):
        with (
            pytest.raises(ValueError, match="was not made by zip-pipeline"),
            files.open(resume=False),
        ):
            pass
        assert (mine / "thesis.txt").read_text() == "years of work"
        if files.work.is_symlink():
            files.work.unlink()
            mine.rename(files.work)
            mine = files.work


def test_open_refuses_to_share_ledger_and_manifest_with_another_out(tmp_path: Path):
    """x.json and x.parquet would have one ledger; the files of the first stay whole."""
    first, second = OutputFiles(tmp_path / "x.json"), OutputFiles(tmp_path / "x.parquet")
    _publish(first, "first")
    with (
        pytest.raises(ValueError, match=r"x\.manifest\.json belongs to x\.json, and x\.parquet"),
        second.open(resume=False),
    ):
        pass
    assert json.loads(first.manifest.read_text())["output"] == "x.json"
    first.out.unlink()
    _publish(second, "second")
    assert json.loads(first.manifest.read_text())["output"] == "x.parquet"


@pytest.mark.parametrize("name", ["x.manifest.json", "x.ledger.parquet"])
def test_open_refuses_to_replace_what_no_selection_wrote(tmp_path: Path, name: str):
    """A file that happens to be called as the ledger or the manifest would be is kept."""
    (tmp_path / name).write_bytes(b'{"accounts": 2026}')
    with (
        pytest.raises(ValueError, match=f"--output: .*{name} was not written by a selection"),
        OutputFiles(tmp_path / "x.json").open(resume=False),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b'{"accounts": 2026}'


def test_a_selection_killed_while_it_publishes_is_published_again(tmp_path: Path):
    """A ledger without a manifest is what a killed run of ours leaves."""
    files = OutputFiles(tmp_path / "x.json")
    _LEDGER.write_parquet(files.ledger)
    _publish(files, "new")
    assert files.out.read_text() == "new"


@pytest.mark.parametrize("name", ["x.csv", "x", "x.jsonl.gz", ".jsonl"])
def test_output_files_refuse_other_kinds(tmp_path: Path, name: str):
    """OUT is a .jsonl, .json or .parquet file."""
    with pytest.raises(ValueError, match=r"--output: got .* allowed are files named \*\.jsonl"):
        OutputFiles(tmp_path / name)


@pytest.mark.parametrize("out", ["in.jsonl", "folder/x.json", "x.json"])
def test_output_files_refuse_to_write_over_inputs(tmp_path: Path, out: str):
    """No output file may be an input or lie in an input folder."""
    (tmp_path / "folder").mkdir()
    inputs = [tmp_path / "in.jsonl", tmp_path / "folder", tmp_path / "x.ledger.parquet"]
    with pytest.raises(ValueError, match="write outside of what is read"):
        OutputFiles(tmp_path / out).refuse_inputs(inputs)
    OutputFiles(tmp_path / "other.json").refuse_inputs(inputs)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("num", [0, 1, 3])
def test_write_records_round_trips(tmp_path: Path, suffix: str, num: int):
    """Records come back JSON-equal, in order, whatever white space they held."""
    records = ['{"a": 1.0, "b": "x\\ny\u2028"}', '{\n  "ü": [\n1]}', '{"c": "\\ud800"}'][:num]
    path = tmp_path / f"records{suffix}"
    write_records(path, records)
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line]
    found = json.loads(text) if suffix == ".json" else [json.loads(line) for line in lines]
    assert found == [json.loads(record) for record in records]
    assert text.endswith("\n") or not num
