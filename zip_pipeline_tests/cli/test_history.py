"""``zip-pipeline trace`` and ``zip-pipeline diff``."""

from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.samples import sample_id
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.report.data_roots import (
    ledger_of,
    sample_of,
    small_root,
    write_batch_tables,
    write_version,
)
from zip_pipeline_tests.report.reported_roots import reported_root

_ONE, _FOUR = sample_id(sample_of("one")), sample_id(sample_of("four"))


def _words(text: str) -> str:
    return " ".join(text.split())


def test_trace_tells_text_places_and_fates(tmp_path: Path):
    """A trace prints the text, every place and the fate in every version."""
    small_root(tmp_path)
    text = _words(call_well("trace", _ONE[:6], "--data-root", tmp_path))
    assert f"Sample {_ONE} sft" in text
    assert "assistant: answer to one" in text
    assert "a.jsonl row 4 (source a) exact copy of a.jsonl, row 1" in text
    assert "version 1 picked as number 1, in round 1: the least redundant left on" in text
    assert "version 2 left on the shortlist" in text


def test_trace_says_that_a_sample_is_kept_for_evaluation(tmp_path: Path):
    """A held-out sample says so, also before any version was selected."""
    root = small_root(tmp_path)
    root["sft"].held_out.parent.mkdir()
    held_out = pl.read_parquet(root["sft"].samples("b.jsonl")).filter(sample_id=_FOUR)
    held_out.write_parquet(root["sft"].held_out)
    root["sft"].versions.folder.rename(tmp_path / "elsewhere")
    text = _words(call_well("trace", _FOUR, "--data-root", tmp_path))
    assert "b.jsonl row 2 (source b) kept for evaluation" in text


def test_trace_without_versions_says_so(tmp_path: Path):
    """Before the first version there are places but no fates."""
    root = small_root(tmp_path)
    root["sft"].versions.folder.rename(tmp_path / "elsewhere")
    text = call_well("trace", _ONE, "--stage", "sft", "--data-root", tmp_path)
    assert "no version was selected yet" in text


def test_trace_shows_a_near_copy_beside_the_sample_that_stays(tmp_path: Path):
    """Lines that differ are marked, in two columns."""
    root = small_root(tmp_path)
    two = sample_id(sample_of("two"))
    ledger = ledger_of([{"sample_id": _ONE, "fate": "near_duplicate"}]).with_columns(
        evidence=pl.lit("the same prompt and answer"), other=pl.lit(two)
    )
    write_version(root, ledger)
    text = _words(call_well("trace", _ONE, "--data-root", tmp_path))
    assert "version 3 marked as a near-duplicate: the same prompt and answer" in text
    assert "Beside the sample that took part in its place" in text
    assert "≠ assistant: answer to one assistant: answer to two" in text


def test_trace_cuts_long_texts(tmp_path: Path):
    """A long sample is shown by its beginning."""
    root = small_root(tmp_path)
    long = "[bold]" + "word " * 500
    write_batch_tables(root, "c.jsonl", [long])
    text = call_well("trace", sample_id(sample_of(long)), "--data-root", tmp_path)
    assert "user: [bold]word word" in text
    assert " …" in text
    assert len(text) < 2000


def test_trace_reads_the_data_root_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """ZIP_PIPELINE_DATA names the data root; without it, it is ./data."""
    small_root(tmp_path / "data")
    monkeypatch.setenv("ZIP_PIPELINE_DATA", str(tmp_path / "data"))
    assert _ONE in call_well("trace", _ONE)
    monkeypatch.delenv("ZIP_PIPELINE_DATA")
    monkeypatch.chdir(tmp_path)
    assert _ONE in call_well("trace", _ONE)


def test_trace_looks_in_a_ledger_of_select(tmp_path: Path):
    """--select-ledger needs no data root."""
    ledger = small_root(tmp_path)["sft"].versions.path(2) / "ledger.parquet"
    text = _words(call_well("trace", _FOUR, "--select-ledger", ledger))
    assert "ledger.parquet picked as number 2" in text


def test_diff_tells_what_moved(tmp_path: Path):
    """A diff prints samples in, out and stayed, what else changed, and sources."""
    small_root(tmp_path)
    text = _words(call_well("diff", "1", "2", "--data-root", tmp_path))
    for words in (
        "sft: version 1 → version 2",
        "in 1 sample, 100 bytes",
        "out 1 sample, 100 bytes",
        f"in 1 not in pool {_FOUR[:12]}: no batch of that version's pool held it; it came with",
        f"out 1 shortlisted {_ONE[:12]}: left on the shortlist (the 20 least redundant",
        "stayed 1 sample, 100 bytes",
        "R of subset, deflate 2.500 2.250",
        "samples in the pool 3 4",
        "batch b.jsonl added",
        "b new 0 1 1 0 0",
    ):
        assert words in text
    assert "xz" not in text


def test_diff_of_a_version_with_itself_says_same(tmp_path: Path):
    """Equal configuration and inputs are said in words."""
    small_root(tmp_path)
    text = call_well("diff", "2", "2", "--data-root", tmp_path)
    assert "Same configuration, same input batches." in text


def test_diff_lists_samples_for_other_tools(tmp_path: Path):
    """--list prints one sample per line, tab-separated."""
    small_root(tmp_path)
    text = call_well("diff", "1", "2", "--list", "in", "--data-root", tmp_path)
    why = "no batch of that version's pool held it; it came with b.jsonl"
    assert text == f"{_FOUR}\tb\tb.jsonl:2\tnot_in_pool\tpicked\t{why}\n"
    text = call_well("diff", "1", "2", "--list", "out", "--data-root", tmp_path)
    assert text.split("\t")[5].startswith("left on the shortlist (the 20 least redundant")


def test_diff_shows_the_sources_that_moved_most(tmp_path: Path):
    """Of many sources the first 20 are shown, the others counted."""
    root = small_root(tmp_path)
    rows = [
        {"sample_id": f"{n:032x}", "source": f"s{n}", "fate": "picked", "rank": n + 1}
        for n in range(25)
    ]
    number = write_version(root, ledger_of(rows))
    text = call_well("diff", "1", str(number), "--data-root", tmp_path)
    assert "6 more sources moved less." in text


def test_history_refuses_in_one_line(tmp_path: Path):
    """Unknown roots, versions and samples are told with a remedy."""
    nowhere = tmp_path / "nowhere"
    told = call_badly("trace", _ONE, "--data-root", nowhere)
    assert "no such data root; name one with" in told
    assert "or the ledger that `select` wrote with --select-ledger" in told
    assert "sample-data" in call_badly("diff", "1", "2", "--data-root", nowhere)
    small_root(tmp_path)
    assert "there are: 1, 2" in call_badly("diff", "1", "9", "--data-root", tmp_path)
    assert "none yet" in call_badly(
        "diff", "1", "2", "--stage", "preference", "--data-root", tmp_path
    )
    assert "no sample ffffff" in call_badly("trace", "ffffff", "--data-root", tmp_path)
    assert call("diff", "0", "1", "--data-root", tmp_path).exit_code == 2


def test_report_writes_a_page_and_says_where(tmp_path: Path):
    """The verdict and the three files are printed; the latest version is the default."""
    reported_root(tmp_path / "root", 40)
    text = call_well("report", "--data-root", tmp_path / "root", "-o", tmp_path / "out")
    assert _words(text).startswith("sft version 2: Version 2 is not judged yet. Materialise")
    assert (tmp_path / "out" / "v000002.html").exists()
    assert (tmp_path / "out" / "v000002" / "croissant.json").exists()
    assert "v000002/README.md" in text.replace("\n", "").replace(" ", "")
    line = call_badly("report", "7", "--data-root", tmp_path / "root")
    assert line.endswith("no version 7; there are: 1, 2")
