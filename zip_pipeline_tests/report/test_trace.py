"""Traces of samples."""

import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.files import write_json, write_table
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.report.trace import Fate, Origin, trace_in_ledger, trace_sample
from zip_pipeline.samples import (
    PreferencePair,
    RatedAnswer,
    Turn,
    frame_of,
    sample_columns,
    sample_id,
)
from zip_pipeline_tests.report.data_roots import (
    ledger_of,
    manifest_of,
    sample_of,
    small_root,
    write_version,
)
from zip_pipeline_tests.report.reported_roots import conversations, reported_root

_ONE, _TWO, _FOUR = (sample_id(sample_of(text)) for text in ("one", "two", "four"))


def test_trace_tells_places_and_fates(tmp_path: Path):
    """A trace has the text, every place with copies noted, and the fate in each version."""
    found = trace_sample(small_root(tmp_path), _ONE)
    assert (found.sample_id, found.stage) == (_ONE, "sft")
    assert found.text == "user: one\nassistant: answer to one\n"
    assert found.origins == (
        Origin("a.jsonl", "a", "a.jsonl", 1, ""),
        Origin("a.jsonl", "a", "a.jsonl", 4, "exact copy of a.jsonl, row 1"),
    )
    assert [(fate.selection, fate.fate) for fate in found.fates] == [
        ("version 1", "picked"),
        ("version 2", "shortlisted"),
    ]
    assert found.fates[1].why.startswith("left on the shortlist (the 20 least redundant")


@pytest.mark.parametrize(
    ("place", "wanted"),
    [("a.jsonl:1", _ONE), ("a.jsonl:4", _ONE), ("data/raw/sft/b.jsonl:1", _TWO)],
)
def test_trace_takes_the_place_of_a_sample(tmp_path: Path, place: str, wanted: str):
    """File and row, or the file's path, also of a copy; a ledger has places as well."""
    root = small_root(tmp_path)
    assert trace_sample(root, place).sample_id == wanted
    if place == "a.jsonl:1":
        ledger = root["sft"].versions.path(1) / "ledger.parquet"
        assert trace_in_ledger(ledger, place).sample_id == wanted


def test_trace_says_why_no_sample_stands_at_a_place(tmp_path: Path):
    """A row that was rejected is told with its reason, one that is not there as such."""
    root = DataRoot(tmp_path)
    root["sft"].raw.mkdir(parents=True)
    (root["sft"].raw / "a.jsonl").write_text('{"prompt": "q", "completion": "a"}\n{\n')
    ingest_drop(root["sft"], "a.jsonl")
    with pytest.raises(
        UserError, match=r"^a\.jsonl:2: is no sample; it was rejected, invalid_json"
    ):
        trace_sample(root, "a.jsonl:2")
    with pytest.raises(UserError, match=r"no row a\.jsonl:3; give FILE:ROW as"):
        trace_sample(root, "a.jsonl:3")


def test_trace_notes_copies_in_other_batches(tmp_path: Path):
    """The first batch in sorted order stands for the sample; its fate is the sample's."""
    found = trace_sample(small_root(tmp_path), _TWO)
    assert found.origins == (
        Origin("a.jsonl", "a", "a.jsonl", 2, ""),
        Origin("b.jsonl", "b", "b.jsonl", 1, "exact copy; batch a.jsonl stands for it"),
    )
    assert [fate.fate for fate in found.fates] == ["picked", "picked"]


def test_trace_says_where_a_version_did_not_hold_the_sample(tmp_path: Path):
    """A sample of a later batch was not in the pool of an earlier version."""
    found = trace_sample(small_root(tmp_path), _FOUR, ["sft"])
    assert found.fates[0] == Fate(
        "version 1",
        "2026-01-02T03:04:05+00:00",
        "not_in_pool",
        "no batch of that version's pool held it",
    )


def test_trace_finds_what_left_the_pool(tmp_path: Path):
    """A sample whose batch is gone is still found in the ledgers of old versions."""
    root = small_root(tmp_path)
    root["sft"].samples("b.jsonl").unlink()
    found = trace_sample(root, _FOUR)
    note = "as version 2 recorded it; no batch holds it any more"
    assert (found.text, found.origins) == (None, (Origin("b.jsonl", "b", "b.jsonl", 2, note),))
    assert [fate.fate for fate in found.fates] == ["not_in_pool", "picked"]


def _hold_out(root: DataRoot, *texts: str) -> None:
    """Put samples of the batches into the held-out table."""
    ids = [sample_id(sample_of(text)) for text in texts]
    tables = [pl.read_parquet(root["sft"].samples(batch)) for batch in root["sft"].batches()]
    held_out = pl.concat(tables).filter(pl.col("sample_id").is_in(ids)).unique("sample_id")
    write_table(root["sft"].held_out, held_out, {})


def test_trace_says_what_is_kept_for_evaluation(tmp_path: Path):
    """A held-out sample is noted at its place, and in the versions that recorded it."""
    root = small_root(tmp_path)
    _hold_out(root, "four")
    row = {"sample_id": _FOUR, "batch": "b.jsonl", "source": "b", "fate": "held_out"}
    write_version(root, ledger_of([row | {"num_bytes": None, "round": None, "pi": None}]))
    found = trace_sample(root, _FOUR)
    assert found.origins == (Origin("b.jsonl", "b", "b.jsonl", 2, "kept for evaluation"),)
    assert [fate.fate for fate in found.fates] == ["not_in_pool", "picked", "held_out"]
    assert found.fates[2].why == "kept for evaluation, so no version may pick it"
    assert trace_sample(root, _ONE).origins[0].note == ""


def test_trace_finds_what_is_kept_for_evaluation_in_no_batch(tmp_path: Path):
    """A held-out sample whose batch is gone, or never was, is found with its text."""
    root = small_root(tmp_path)
    _hold_out(root, "four")
    root["sft"].samples("b.jsonl").unlink()
    found = trace_sample(root, _FOUR)
    note = "kept for evaluation; no batch holds it"
    assert found.origins == (Origin("b.jsonl", "b", "b.jsonl", 2, note),)
    assert found.text == "user: four\nassistant: answer to four\n"


def test_trace_takes_a_unique_prefix(tmp_path: Path):
    """Six digits that name one sample are enough."""
    root = small_root(tmp_path)
    assert trace_sample(root, f" {_ONE[:6].upper()} ").sample_id == _ONE


def test_trace_refuses_an_ambiguous_prefix(tmp_path: Path):
    """A prefix of several samples is an error that shows some of them."""
    root = DataRoot(tmp_path)
    write_version(root, ledger_of([{"sample_id": f"abcdef{i}" + "0" * 25} for i in range(4)]))
    with pytest.raises(ValueError, match=r"4 samples start with abcdef \(abcdef00.*give more"):
        trace_sample(root, "abcdef")


@pytest.mark.parametrize("asked", ["abcde", "", "xyzxyz", "0" * 33, "../../etc"])
def test_trace_refuses_what_is_no_id(tmp_path: Path, asked: str):
    """An id has 6 to 32 hexadecimal digits."""
    with pytest.raises(ValueError, match=r"^sample id: got .* allowed are 32 hexadecimal digits"):
        trace_sample(small_root(tmp_path), asked)


def test_trace_of_an_unknown_id_says_where_ids_stand(tmp_path: Path):
    """An unknown id is an error with a remedy."""
    with pytest.raises(ValueError, match="no sample 000000; a ledger's column sample_id"):
        trace_sample(small_root(tmp_path), "000000")


def test_trace_in_a_ledger_file_reads_the_manifest_beside_it(tmp_path: Path):
    """A ledger of a selection tells place and fate with the configuration beside it."""
    rows = [
        {"sample_id": _ONE, "source_row": 8, "fate": "shortlisted"},
        {"sample_id": _ONE, "source_row": 9, "fate": "duplicate", "duplicate_of_file": "a.jsonl"}
        | {"duplicate_of_row": 8, "duplicate_of_batch": "a.jsonl"},
    ]
    ledger_of(rows).write_parquet(tmp_path / "x.ledger.parquet")
    write_json(tmp_path / "x.manifest.json", manifest_of())
    found = trace_in_ledger(tmp_path / "x.ledger.parquet", _ONE[:8])
    assert [origin.note for origin in found.origins] == ["", "exact copy of a.jsonl, row 8"]
    assert [fate.fate for fate in found.fates] == ["shortlisted"]
    assert "the 20 least redundant" in found.fates[0].why


@pytest.mark.parametrize("stem", ["x.", ""])
def test_trace_in_a_ledger_file_tells_why_a_row_was_rejected(tmp_path: Path, stem: str) -> None:
    """A place where no sample stands is looked up in the quarantine beside the ledger."""
    ledger = tmp_path / f"{stem}ledger.parquet"
    ledger_of([{"sample_id": _ONE, "fate": "picked"}]).write_parquet(ledger)
    with pytest.raises(UserError, match=r"no sample a\.jsonl:9; a ledger's column"):
        trace_in_ledger(ledger, "a.jsonl:9")
    row = {"batch": "a.jsonl", "source_file": "a.jsonl", "source_row": 9, "detail": "no answer"}
    beside = tmp_path / f"{stem}quarantine.parquet"
    pl.DataFrame([row | {"reason": "empty", "raw": "{}"}]).write_parquet(beside)
    words = rf"a\.jsonl:9: is no sample; it was rejected, empty \(no answer\); {beside} has it as"
    with pytest.raises(UserError, match=words):
        trace_in_ledger(ledger, "a.jsonl:9")


def test_trace_in_a_version_folder_reads_its_ledger(tmp_path: Path):
    """A version's own ledger.parquet is a ledger file as well."""
    path = small_root(tmp_path)["sft"].versions.path(2) / "ledger.parquet"
    assert trace_in_ledger(path, _ONE).stage == "sft"


def test_trace_in_a_ledger_without_manifest_still_tells(tmp_path: Path):
    """Without a manifest the fate is told without the configuration's figures."""
    ledger_of([{"sample_id": _ONE, "fate": "picked", "rank": 1}]).write_parquet(tmp_path / "l.p")
    assert trace_in_ledger(tmp_path / "l.p", _ONE).fates[0].why.startswith("picked as number 1")


@pytest.mark.parametrize("content", [None, b"no parquet", "another table"])
def test_trace_refuses_a_file_that_is_no_ledger(tmp_path: Path, content: bytes | str | None):
    """A missing, broken or other file is an error that says which file is wanted."""
    path = tmp_path / "x.ledger.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(ValueError, match=r"x\.ledger\.parquet: no readable ledger \(.*\); give"):
        trace_in_ledger(path, _ONE)


def _text_of(folder: Path, sample: PreferencePair | RatedAnswer) -> str | None:
    """Return the text in the trace of the only sample of a preference pool."""
    root = DataRoot(folder)
    row = {"sample_id": sample_id(sample), "batch": "p", "source": "s", "source_file": "p"}
    row |= {"source_row": 1, "format": "x", "raw": "{}"} | sample_columns(sample)
    write_table(root["preference"].samples("p"), frame_of("preference", [row]), {})
    return trace_sample(root, sample_id(sample)).text


def test_trace_of_a_pair_tells_its_answers_apart(tmp_path: Path):
    """A pair's text names the chosen and the rejected answer, and has all that is said."""
    user, good, bad = Turn("user", "q"), Turn("assistant", "good"), Turn("assistant", "bad")
    pair = PreferencePair((user,), (good,), (bad,))
    assert _text_of(tmp_path / "a", pair) == "user: q\nchosen: good\nrejected: bad\n"
    call = Turn("assistant", "so: ", "[1]", reasoning="hm")
    rich = PreferencePair(
        (Turn("user", "q", name="ann"),),
        (call, Turn("tool", "2", name="f"), good),
        (bad,),
        tools="[]",
    )
    assert _text_of(tmp_path / "b", rich) == (
        "tools: []\nuser ann: q\nchosen: <think>hm</think>\nso: [1]\nchosen tool f: 2\n"
        "chosen: good\nrejected: bad\n"
    )


@pytest.mark.parametrize(("is_good", "name"), [(True, "desirable"), (False, "undesirable")])
def test_trace_of_a_rated_answer_tells_its_rating(tmp_path: Path, is_good: bool, name: str):
    """The only answer is called what it was rated."""
    rated = RatedAnswer((Turn("user", "q"),), (Turn("assistant", "a"),), is_good)
    assert _text_of(tmp_path, rated) == f"user: q\n{name}: a\n"


@pytest.mark.slow
def test_a_trace_through_50_versions_of_80_000_rows_is_quick(tmp_path: Path) -> None:
    """It takes at most 1.25 s of processor time, the start of Python too; 1.0 s was measured."""
    reported_root(tmp_path, 80_000, num_versions=50, num_words=40)
    name = sample_id(conversations(80_000, 40)[40_000])
    command = [
        sys.executable,
        "-m",
        "zip_pipeline.cli",
        "trace",
        name,
        "--data-root",
        str(tmp_path),
    ]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert told.count("never looked at") == 50
    # Whoever else computes takes caches away.
    assert min(seconds) < 1.25
