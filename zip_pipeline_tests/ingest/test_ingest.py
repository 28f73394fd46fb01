"""Rules of turning a drop into a batch."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zip_pipeline.data_root import DataRoot
from zip_pipeline.ingest import ingest as ingest_module
from zip_pipeline.ingest import streams
from zip_pipeline.ingest.ingest import ingest, ingest_drop, read_batch, write_batch
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.readers import read_rows
from zip_pipeline.pool import parts
from zip_pipeline.samples import Sample, Turn, pool_schema, sample_id
from zip_pipeline_tests.ingest.test_quarantine import LIMITS, SFT_ROWS
from zip_pipeline_tests.pool.files import json_lines, json_list, write


def question(text: str, **more: object) -> dict[str, object]:
    """Return a question with its answer."""
    return {"question": text, "answer": f"{text}!"} | more


def test_ingest_gives_the_pool_table(tmp_path):
    """A sample has its id, its place, its format, its turns and its raw record."""
    path = write(tmp_path / "qa.v1.jsonl.gz", b'{"question": "q", "answer":  "a "}\n')
    result = ingest(path, "sft", batch="batch")
    turns = (Turn("user", "q"), Turn("assistant", "a "))
    assert result.samples.schema == pool_schema("sft")
    assert result.samples.rows(named=True) == [
        {
            "sample_id": sample_id(Sample(turns)),
            "batch": "batch",
            "source": "qa.v1",
            "source_file": "qa.v1.jsonl.gz",
            "source_row": 1,
            "format": "question_answer",
            "turns": [asdict(turn) for turn in turns],
            "tools": "",
            "media": "",
            "raw": '{"question": "q", "answer":  "a "}',
        }
    ]


def test_ingest_reads_pairs_with_scores(tmp_path):
    """A preference sample has prompt, both sides and their scores."""
    record = {"prompt": "p", "chosen": "c", "rejected": "r", "score_chosen": 2, "score_rejected": 1}
    path = write(tmp_path / "a.json", json_list([record]))
    result = ingest(path, "preference", batch="b")
    assert result.samples.schema == pool_schema("preference")
    [row] = result.samples.rows(named=True)
    assert row["prompt"] == [asdict(Turn("user", "p"))]
    assert row["chosen"][0]["content"] == "c"
    assert (row["chosen_score"], row["rejected_score"]) == (2.0, 1.0)
    assert json.loads(row["raw"]) == record


def test_ingest_takes_the_source_from_override_record_or_file(tmp_path):
    """An override wins, then a record's own source or dataset, then the file name."""
    rows = [
        question("a", source=" own "),
        question("b", dataset="set", source=""),
        question("c", source=3),
    ]
    path = write(tmp_path / "file.jsonl", json_lines(rows))
    assert ingest(path, "sft", batch="b").samples["source"].to_list() == ["own", "set", "file"]
    overridden = ingest(path, "sft", batch="b", options=ReadOptions(source="x")).samples
    assert overridden["source"].to_list() == ["x"] * 3


def test_a_long_text_is_no_source(tmp_path):
    """Names of sources are all in memory; what is longer than one is not read, and said so."""
    rows = [question("a", source="s" * 200), question("b", source="s" * 201, dataset="set")]
    rows.append(question("c", source="s" * 201))
    result = ingest(write(tmp_path / "file.jsonl", json_lines(rows)), "sft", batch="b")
    assert result.samples["source"].to_list() == ["s" * 200, "set", "file"]
    assert result.unread == {"source": 2}


def test_ingest_keeps_the_first_of_equal_samples(tmp_path):
    """Equal normalised turns are one sample; each repeat is recorded with the first."""
    rows = [question("a"), question("b"), {"question": " a\r\n", "answer": "a!", "id": 7}]
    write(tmp_path / "drop" / "1.jsonl", json_lines(rows))
    alpaca = {"instruction": "b", "input": "", "output": "b!"}
    write(tmp_path / "drop" / "2.json", json_list([alpaca]))
    result = ingest(tmp_path / "drop", "sft", batch="b")
    assert result.samples["source_row"].to_list() == [1, 2]
    first, second = result.samples["sample_id"]
    assert result.duplicates.rows() == [
        (first, "1.jsonl", 3, "1.jsonl", 1),
        (second, "2.json", 1, "1.jsonl", 2),
    ]
    assert result.num_rows_read == 4


def test_ingest_tells_the_format_of_each_file(tmp_path):
    """Files of one folder may have different formats, and broken rows may come first."""
    write(tmp_path / "a.jsonl", b"{oops\n" * 50 + json_lines([question("a")]))
    write(tmp_path / "b.jsonl", json_lines([{"prompt": "p", "completion": "c"}] * 30))
    result = ingest(tmp_path, "sft", batch="b")
    assert result.samples["format"].to_list() == ["question_answer", "prompt_completion"]
    assert (result.quarantine.height, result.duplicates.height) == (50, 29)


def test_ingest_reads_mixed_records(tmp_path):
    """A record that does not look like its file is read by its own format, where it has one."""
    rows = [*(question(text) for text in "abc"), {"prompt": "p", "completion": "c"}, {"answer": 1}]
    result = ingest(write(tmp_path / "a.jsonl", json_lines(rows)), "sft", batch="b")
    assert result.samples["format"].to_list() == ["question_answer"] * 3 + ["prompt_completion"]
    assert result.quarantine["reason"].to_list() == ["missing_field"]


def test_ingest_reads_as_the_override_says(tmp_path):
    """An overridden format is used for every row, an unknown one is refused."""
    row = {"instruction": "i", "output": "o", "question": "q", "answer": "a"}
    path = write(tmp_path / "a.jsonl", json_lines([row]))
    assert ingest(path, "sft", batch="b").samples["format"].item() == "alpaca"
    result = ingest(path, "sft", batch="b", options=ReadOptions(format="question_answer"))
    assert result.samples["turns"].item()[0]["content"] == "q\n\ni"
    assert result.unread == {"output": 1}
    with pytest.raises(ValueError, match="format: 'csv' is no format of sft; choose one of"):
        ingest(path, "sft", batch="b", options=ReadOptions(format="csv"))


def test_ingest_survives_half_surrogates(tmp_path):
    """Half a surrogate pair costs a row only where it would be stored as text."""
    rows = [question("\ud800"), question("a", id="\udfff"), question("b", source="\ud800")]
    for name, content in (("a.jsonl", json_lines(rows)), ("a.json", json_list(rows))):
        result = ingest(write(tmp_path / name, content), "sft", batch="b")
        assert result.samples["source_row"].to_list() == [2]
        assert result.quarantine["reason"].to_list() == ["bad_encoding"] * 2
        assert json.loads(result.samples["raw"].item()) == rows[1]


# Letters are questions, the others the reason why a row is none.
ROWS = st.lists(st.sampled_from("abcd") | st.sampled_from([*SFT_ROWS]), max_size=25)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=ROWS, buffered=st.integers(1, 5), name=st.sampled_from(["a.jsonl", "a.json"]))
def test_rows_read_are_samples_duplicates_and_quarantine(tmp_path, rows, buffered, name):
    """However broken the rows, each is in exactly one table, and equal samples are one."""
    written = [SFT_ROWS.get(row, question(row)) for row in rows]
    write_rows = json_lines if name == "a.jsonl" else json_list
    path = write(tmp_path / name, write_rows(written))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_NUM_BUFFERED_ROWS", buffered)
        result = ingest(path, "sft", batch="b", limits=LIMITS)
    tables = (result.samples, result.duplicates, result.quarantine)
    places = [place for t in tables for place in t.select("source_file", "source_row").rows()]
    assert sorted(places) == sorted((r.source_file, r.source_row) for r in read_rows(path, LIMITS))
    assert len(set(places)) == len(places) == result.num_rows_read
    assert result.samples["sample_id"].is_unique().all()
    if name == "a.jsonl":
        assert result.num_rows_read == len(rows)
        assert result.samples.height == len(set(rows) - set(SFT_ROWS))


def test_tables_in_temporary_files_are_those_in_memory(tmp_path, monkeypatch):
    """Content, order, ids, hash and what is told do not depend on how much is held in memory."""
    rows: list[object] = [
        question(f"{n % 40}", id=n % 3, source=f"https://example.org/{n % 40}", n=[{"x": n % 2}])
        for n in range(60)
    ]
    for place in (0, 1, 30):
        rows.insert(place, {"question": "x" * place})
    # A broken beginning is told before the first rows, whose format it does not help to tell.
    for name, beginning in (("2.jsonl", b"{oops\n" * 3), ("1.jsonl", b"")):
        first, *rest = (json_lines([row]) for row in rows)
        write(tmp_path / "drop" / name, first + beginning + b"".join(rest))
    whole = ingest(tmp_path / "drop", "sft", batch="b")
    assert [whole.samples.height, whole.quarantine.height, whole.duplicates.height] == [40, 9, 80]
    assert set(whole.unread) >= {"id", "source", "id (differs between duplicates)"}
    assert not any((tmp_path / "scratch").glob("*"))
    monkeypatch.setattr(parts, "_NUM_BUFFERED_ROWS", 3)
    monkeypatch.setattr(parts, "_PART_BYTES", 500)
    spilled = ingest(tmp_path / "drop", "sft", batch="b", scratch=tmp_path / "scratch")
    assert any((tmp_path / "scratch").glob(".tmp-ingest-*/*"))
    for name in ("samples", "quarantine", "duplicates"):
        assert getattr(spilled, name).equals(getattr(whole, name)), name
    assert spilled.metadata() == whole.metadata()
    root = DataRoot(tmp_path / "data")
    write_batch(root["sft"], "b", spilled)
    assert read_batch(root["sft"], "b").equals(whole.samples)
    del spilled
    assert not any((tmp_path / "scratch").glob("*"))


def test_fingerprint_tells_the_content_only(tmp_path):
    """An unchanged file keeps its fingerprint; any change of a row gives another."""
    rows = [question("a"), question("a"), question("b"), {"question": "c"}]
    path = write(tmp_path / "a.jsonl", json_lines(rows))
    before = ingest(path, "sft", batch="b").fingerprint
    write(path, json_lines(rows))
    assert ingest(path, "sft", batch="b").fingerprint == before
    changes = [
        rows[:3],
        rows[1:],
        [rows[2], *rows[:2], rows[3]],
        [question("a", id=1), *rows[1:]],
        [*rows[:3], {"question": "d"}],
    ]
    found = {before}
    for changed in changes:
        found.add(ingest(write(path, json_lines(changed)), "sft", batch="b").fingerprint)
    assert len(found) == 6


def drop(root: DataRoot, name: str, content: bytes) -> Path:
    """Write a file into the drop folder."""
    return write(root["sft"].raw / name, content)


def test_ingest_drop_writes_the_batch(tmp_path):
    """A drop becomes the batch of its full name, read as its sidecar says."""
    root = DataRoot(tmp_path)
    drop(root, "a.jsonl", json_lines([question("a", source="own"), question("b")]))
    drop(root, "a.jsonl.batch.toml", b'source = "team"\nformat = "question_answer"\n')
    result = ingest_drop(root["sft"], "a.jsonl")
    assert root["sft"].batches() == ["a.jsonl"]
    assert read_batch(root["sft"], "a.jsonl").equals(result.samples)
    assert result.samples["source"].to_list() == ["team", "team"]


def test_ingest_drop_refuses_a_drop_that_changes(tmp_path, monkeypatch):
    """A drop that changes while it is read is an error, and nothing is written."""
    root = DataRoot(tmp_path)
    path = drop(root, "a.jsonl", json_lines([question("a")]))

    def read_while_written(*args, **options):
        rows = list(read_rows(*args, **options))
        path.write_bytes(json_lines([question("a"), question("b")]))
        return iter(rows)

    monkeypatch.setattr(ingest_module, "read_rows", read_while_written)
    with pytest.raises(ValueError, match=r"a\.jsonl: the drop changed while it was read; drop it"):
        ingest_drop(root["sft"], "a.jsonl")
    assert root["sft"].batches() == []


def test_ingest_drop_refuses_millions_of_tiny_rows(tmp_path, monkeypatch):
    """Whatever becomes of the rows; longer ones are not counted, and nothing is written."""
    monkeypatch.setattr(ingest_module, "_MOST_SHORT_ROWS", 4)
    tiny, long = [question("a"), {"no": "sample"}], [question("a" * 100)]
    root = DataRoot(tmp_path)
    drop(root, "a.jsonl", json_lines(tiny * 2 + long * 9))
    before = ingest_drop(root["sft"], "a.jsonl")
    assert before.num_rows_read == 13
    drop(root, "a.jsonl", json_lines(long * 9 + tiny * 2 + tiny[1:]))
    with pytest.raises(ValueError) as caught:
        ingest_drop(root["sft"], "a.jsonl")
    assert str(caught.value) == (
        "a.jsonl: got more than 4 rows of fewer than 128 characters, which take too much memory at "
        "once; split it into several drops"
    )
    assert read_batch(root["sft"], "a.jsonl").equals(before.samples)


def test_ingest_drop_fails_where_the_system_withholds_a_file(tmp_path, monkeypatch):
    """Nothing is written, an earlier batch stays, and the next try reads what can be read again."""
    root = DataRoot(tmp_path)
    for name in ("a.jsonl", "b.jsonl.gz", "c.csv"):
        drop(root, f"folder/{name}", json_lines([question(name)]))
    before = ingest_drop(root["sft"], "folder")
    path = drop(root, "folder/b.jsonl.gz", json_lines([question("other")]))

    def broken(_: object):
        raise OSError(5, "Input/output error")
        yield

    with monkeypatch.context() as patch:
        patch.setitem(streams._DECODERS, re.compile(rb"\x1f\x8b\x08"), broken)
        with pytest.raises(ValueError) as caught:
            ingest_drop(root["sft"], "folder")
    assert str(caught.value) == (
        f"{path}: cannot be read (Input/output error); nothing of it is taken in. Put that right, "
        "then try again"
    )
    assert read_batch(root["sft"], "folder").equals(before.samples)
    again = ingest_drop(root["sft"], "folder").samples["turns"].to_list()
    assert [turns[0]["content"] for turns in again] == ["a.jsonl", "other"]


def test_ingest_drop_refuses_links_out_of_the_drop_folder(tmp_path, monkeypatch):
    """Nothing of their target comes into the pool or quarantine, until the folder is allowed."""
    root = DataRoot(tmp_path)
    drop(root, "folder/a.jsonl", json_lines([question("a")]))
    drop(root, "b.jsonl", json_lines([question("b")]))
    secret = write(tmp_path / "secret" / "s.jsonl", json_lines([question("secret")]))
    (root["sft"].raw / "folder" / "b.jsonl").symlink_to("../b.jsonl")
    assert ingest_drop(root["sft"], "folder").samples.height == 2
    (root["sft"].raw / "folder" / "s.jsonl").symlink_to(secret)
    (root["sft"].raw / "s.jsonl").symlink_to(secret)
    for batch in ("folder", "s.jsonl"):
        with pytest.raises(ValueError, match=r"s\.jsonl: the link leads out of .*/raw/sft, to "):
            ingest_drop(root["sft"], batch)
    assert root["sft"].batches() == ["folder"]
    monkeypatch.setenv("ZIP_PIPELINE_LINKS", str(tmp_path / "secret"))
    assert ingest_drop(root["sft"], "folder").samples.height == 3
    assert ingest_drop(root["sft"], "s.jsonl").samples["source"].to_list() == ["s"]


def test_odd_row_costs_no_other_row(tmp_path, monkeypatch):
    """A row that a library chokes on is quarantined; a mistake of ours ends the ingestion."""
    check = ingest_module.check_sample

    def choke(error: Exception):
        def checked(sample: Sample):
            if sample.turns[0].content == "odd":
                raise error
            check(sample)

        return checked

    path = write(tmp_path / "a.jsonl", json_lines([question("a"), question("odd"), question("b")]))
    monkeypatch.setattr(ingest_module, "check_sample", choke(OverflowError("too far")))
    result = ingest(path, "sft", batch="b")
    assert result.samples["source_row"].to_list() == [1, 3]
    [(place, reason, detail)] = result.quarantine.select("source_row", "reason", "detail").rows()
    assert (place, reason, detail) == (2, "unexpected_content", "OverflowError: too far")
    monkeypatch.setattr(ingest_module, "check_sample", choke(TypeError("a mistake")))
    with pytest.raises(TypeError):
        ingest(path, "sft", batch="b")


def test_far_dates_cost_nothing(tmp_path):
    """A date that Python cannot hold is kept as text, in its row and in the rows around it."""
    rows = {"question": ["a", "b"], "answer": ["a!", "b!"], "created": [0, 20_000_000]}
    table = pl.DataFrame(rows).with_columns(pl.col("created").cast(pl.Int32).cast(pl.Date))
    table.write_parquet(tmp_path / "a.parquet")
    result = ingest(tmp_path / "a.parquet", "sft", batch="b")
    assert result.quarantine.is_empty()
    created = [json.loads(raw)["created"] for raw in result.samples["raw"]]
    assert created == ["1970-01-01", "+56728-02-22"]


def test_ingest_drop_refuses_names_that_lead_elsewhere(tmp_path):
    """A batch is one visible, finished entry of the drop folder."""
    for name in ("", "..", "../a", "a/b", ".a", "a.tmp", "a.batch.toml", "/etc"):
        with pytest.raises(ValueError, match="is no name of a drop"):
            ingest_drop(DataRoot(tmp_path)["sft"], name)
    with pytest.raises(ValueError, match="no such file or folder"):
        ingest_drop(DataRoot(tmp_path)["sft"], "a.jsonl")
    (DataRoot(tmp_path)["sft"].raw / "folder").mkdir(parents=True)
    with pytest.raises(ValueError, match="the folder holds no file"):
        ingest_drop(DataRoot(tmp_path)["sft"], "folder")


def test_a_source_in_every_row_is_none(tmp_path, monkeypatch):
    """An address of each row groups nothing, nor do too many names: the source is the file's."""
    rows = [question(str(n), source=f"https://example.org/{n}") for n in range(30)]
    path = write(tmp_path / "web.jsonl", json_lines(rows))
    result = ingest(path, "sft", batch="b")
    assert set(result.samples["source"]) == {"web"}
    assert result.unread == {"source": 30}
    few = write(tmp_path / "few.jsonl", json_lines(rows[:19]))
    assert ingest(few, "sft", batch="b").samples["source"].n_unique() == 19
    named = [question(str(n), source=f"part {n % 15}") for n in range(30)]
    parts = write(tmp_path / "parts.jsonl", json_lines(named))
    assert ingest(parts, "sft", batch="b").samples["source"].n_unique() == 15
    monkeypatch.setattr(ingest_module, "_MAX_SOURCES", 14)
    assert set(ingest(parts, "sft", batch="b").samples["source"]) == {"parts"}


def test_files_for_tests_are_left_out_and_told(tmp_path):
    """A repository's own split is not silently trained on."""
    for name in ("train", "test"):
        write(tmp_path / "hub" / f"{name}.jsonl", json_lines([question(name)]))
    result = ingest(tmp_path / "hub", "sft", batch="b")
    assert result.samples["source_file"].to_list() == ["train.jsonl"]
    assert result.left_out_files == ("test.jsonl",)
    assert json.loads(result.metadata()["left_out_files"]) == ["test.jsonl"]
