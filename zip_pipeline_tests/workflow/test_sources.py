"""What a person gives to select from is one pool, in memory as on disk."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.compression.state import texts_of
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.ingest import ingest
from zip_pipeline.ingest.options import AS_FOUND, ReadOptions
from zip_pipeline.pool.pool import assemble_results
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.selections import select
from zip_pipeline.workflow.sources import (
    Source,
    name_inputs,
    open_inputs,
    question_texts,
    read,
    target_texts,
)
from zip_pipeline_tests.cli.pools import preference_records, sft_records, write_jsonl
from zip_pipeline_tests.ingest.remote_servers import Answer, FileServer


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Return twelve inputs, not in the order of their names, two of one name."""
    found: list[Path] = []
    for number in (9, 11, 3, 1, 10, 2, 4, 5, 6, 7, 8, 0):
        folder = tmp_path / f"in{number}"
        folder.mkdir()
        name = "same.jsonl" if number in (3, 10) else f"n{number}[?].jsonl"
        records: list[object] = [*sft_records(6, first=4 * number)]
        rows = [*records, "{", records[0], {"instruction": "no answer"}]
        found.append(write_jsonl(folder / name, rows))
    return name_inputs(found)


def test_inputs_on_disk_are_the_pool_in_memory(tmp_path: Path, inputs: dict[str, Path]):
    """Order of inputs, duplicates of both kinds, counts and fingerprints are those in memory."""
    work = tmp_path / "work[1]"
    work.mkdir()
    results = {batch: ingest(path, "sft", batch=batch) for batch, path in inputs.items()}
    slow = assemble_results("sft", results)
    told: list[str] = []
    with open_inputs(work, inputs, "sft", AS_FOUND, told.append) as given:
        assert given.pool.rows(range(len(given.pool.index))).equals(slow.samples)
        assert list(given.pool.texts) == texts_of(slow.samples, "sft")
        assert given.duplicates.tail(len(slow.duplicates)).equals(slow.duplicates)
        assert not list(work.glob("*/state"))
    inside = given.duplicates.head(12).select("batch", "source_row", "first_batch")
    assert inside.rows() == [(batch, 8, batch) for batch in inputs]
    assert list(slow.samples["batch"].unique(maintain_order=True)) == list(inputs)
    assert (given.duplicates.height, slow.num_duplicates) == (34, 34)
    assert given.counts == {"num_rows_read": 108, "num_quarantined": 24, "num_duplicates": 34}
    reasons = dict(given.quarantine["reason"].value_counts().iter_rows())
    assert reasons == {"invalid_json": 12, "missing_field": 12}
    assert given.fingerprints == slow.fingerprints
    assert list(given.fingerprints) == told == list(inputs)
    assert list(work.iterdir()) == []


def test_inputs_leave_nothing_behind_when_they_cannot_be_used(tmp_path: Path):
    """What was stored goes with the error."""
    source = write_jsonl(tmp_path / "in.jsonl", ["{"])
    work = tmp_path / "work"
    work.mkdir()
    opened = open_inputs(work, {"in.jsonl": source}, "sft", AS_FOUND, lambda _: None)
    with pytest.raises(ValueError, match=r"no sample in in\.jsonl: 1 row read, quarantined: 1 "):
        opened.__enter__()
    assert list(work.iterdir()) == []


class _Dataset:
    """As ``datasets.Dataset``: rows by iteration, and a table."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def to_polars(self) -> pl.DataFrame:
        return pl.DataFrame(self.records)


class _Arrow:
    """As a table of pandas or pyarrow: iteration would give the names of its columns."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.table = pl.DataFrame(records)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "kind",
    [list, iter, tuple, pl.DataFrame, pl.LazyFrame, _Dataset, _Arrow],
    ids=["list", "iterator", "tuple", "frame", "lazy_frame", "dataset", "arrow"],
)
def test_read_takes_what_a_program_holds(kind: Callable[[list[dict[str, object]]], Source]):
    """Records of any kind are the same samples, in order."""
    records = [{"question": f"q{n}", "answer": f"a{n}", "source": "x"} for n in range(5)]
    pool = read(kind(records))
    assert len(pool) == 5
    assert pool.samples["source_row"].to_list() == [1, 2, 3, 4, 5]
    assert pool.samples["source"].unique().to_list() == ["x"]
    assert pool.samples["sample_id"].equals(read(records).samples["sample_id"])


def test_read_takes_files_and_folders_as_the_command_does(tmp_path: Path):
    """One path or several, as text or as a path; each input is a batch."""
    folder = tmp_path / "folder"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", sft_records(3))
    file = write_jsonl(tmp_path / "b.jsonl", sft_records(4))
    assert len(read(str(file))) == 4
    pool = read([folder, str(file)])
    assert pool.samples["batch"].to_list() == ["folder"] * 3 + ["b.jsonl"]
    assert pool.duplicates.select("batch", "source_row", "first_batch").rows() == [
        ("b.jsonl", row, "folder") for row in (1, 2, 3)
    ]


def test_read_accounts_for_every_record():
    """What is no sample is in quarantine with its row and reason, or a duplicate."""
    good = {"instruction": "a", "output": "b"}
    pool = read([good, "text", good, {"instruction": "no answer"}, {"odd": 1}])
    assert pool.counts == {"rows read": 5, "samples": 1, "quarantined": 3, "duplicates": 1}
    assert pool.quarantine.select("batch", "source_row", "reason").rows() == [
        ("records", 2, "not_an_object"),
        ("records", 4, "missing_field"),
        ("records", 5, "missing_field"),
    ]
    assert pool.duplicates.select("source_row", "first_source_row").rows() == [(3, 1)]
    assert repr(pool) == "<Pool of sft: 5 rows read, 1 samples, 3 quarantined, 1 duplicates>"


def test_read_takes_stage_and_format():
    """Pairs are pairs, and a named format holds for all records."""
    assert len(read(preference_records(3), "preference")) == 3
    pool = read([{"instruction": "a", "output": "b"}], format="messages")
    assert pool.quarantine["reason"].to_list() == ["missing_field"]


def test_notebooks_show_a_pool():
    """The table has the counts and reasons."""
    html = read([{"odd": 1}, {"instruction": "a", "output": "b"}])._repr_html_()
    assert "<th>samples</th><td>1</td>" in html
    assert "<th>quarantined: missing_field</th><td>1</td>" in html


class _NoTable:
    def to_polars(self) -> pl.DataFrame:
        raise ValueError("two columns are called a")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (7, {}, "source: got a int; allowed are files, folders and addresses, a table"),
        ({"question": "a", "answer": "b"}, {}, "source: got a dict; allowed are"),
        (["no.jsonl"], {}, "no.jsonl: no such file or folder"),
        ("", {}, "source: got an empty path; name a file or folder"),
        (_NoTable(), {}, "source: this _NoTable cannot be read as a table (two columns"),
        ([], {"stage": "sfT"}, "stage: got 'sfT'; allowed are sft, preference"),
        ([], {"format": "x"}, "format: 'x' is no format of sft"),
    ],
)
def test_read_refuses_what_it_cannot_use(source: Any, options: Any, message: str):
    """The message names what came and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        read(source, **options)


@pytest.mark.server
def test_addresses_are_sources_as_paths_are(tmp_path: Path, web: FileServer):
    """Together with paths, alone, and in a drop file, whose options count below those given."""
    path = write_jsonl(tmp_path / "a.jsonl", sft_records(3))
    web.files |= {f"/{n}/a.jsonl": Answer(path.read_bytes()) for n in "xy"}
    addresses = [f"{web.url}/x/a.jsonl", f"{web.url}/y/a.jsonl?sig=secret"]
    drop = tmp_path / "b.drop.toml"
    drop.write_text(f'from = "{addresses[0]}"\nsource = "s"\nformat = "alpaca"\n')
    pool = read([path, *addresses])
    assert list(pool.batches) == [str(path), addresses[0], f"{web.url}/y/a.jsonl?…"]
    assert pool.counts == {"rows read": 9, "samples": 3, "quarantined": 0, "duplicates": 6}
    assert read(addresses[0]).samples.equals(read(path).samples)
    assert read(drop).samples["source"].to_list() == ["s"] * 3
    assert read(drop, reading=ReadOptions(source="t")).samples["source"].to_list() == ["t"] * 3
    assert drop.write_text(f'from = "{addresses[0]}"\nformat = "x"\n')
    with pytest.raises(UserError, match="'x' is no format of sft"):
        read(drop)
    with pytest.raises(UserError, match=f"^{re.escape(addresses[0])}: given twice"):
        read([addresses[0], addresses[0]])


@pytest.mark.server
def test_a_selection_records_where_its_records_come_from(tmp_path: Path, web: FileServer):
    """Address and revision of each batch that was fetched, also of a pool read before."""
    path = write_jsonl(tmp_path / "a.jsonl", sft_records(5))
    web.files["/b.jsonl"] = Answer(path.read_bytes(), headers={"ETag": '"e"'})
    address = f"{web.url}/b.jsonl"
    expected = {"b.jsonl": {"address": address, "revision": "ETag=e"}}
    for source in ([path, address], read([path, address])):
        assert select(source, budget_samples=2).manifest["origins"] == expected
    published = select(address, budget_samples=2, k1=4, k2=2, k3=1, reference_compat=True)
    assert published.manifest["origins"] == expected
    assert "origins" not in select(path, budget_samples=2).manifest


def for_target(path: Path) -> SelectionConfig:
    """Return a configuration of a strategy that needs a target."""
    return SelectionConfig(strategy="random_lengths", budget_samples=2, target=str(path))


def test_a_target_is_read_as_any_input(tmp_path: Path) -> None:
    """Its samples are serialised as the pool's; a relative path starts where one says."""
    path = write_jsonl(tmp_path / "target.jsonl", sft_records(3))
    expected = texts_of(read(path).samples, "sft")
    assert len(expected) == 3
    assert target_texts(for_target(path), "sft") == expected
    assert target_texts(for_target(Path("target.jsonl")), "sft", tmp_path) == expected
    unheeded = SelectionConfig(strategy="zip", budget_samples=2, target="no such file")
    assert target_texts(unheeded, "sft") == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "target: .*target.jsonl: no such file or folder"),
        ([], "target: no sample in .*target.jsonl; name a file that has some"),
        (
            [*sft_records(2), {"instruction": "no answer"}],
            "target: target.jsonl, row 3 is no sample: missing_field .*, and so 1 of 3 rows; mend",
        ),
    ],
)
def test_a_target_that_is_not_all_samples_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]] | None, message: str
) -> None:
    """File and row are named: a target that is half read would be another target."""
    path = tmp_path / "target.jsonl"
    if rows is not None:
        write_jsonl(path, rows)
    with pytest.raises(ValueError, match=message):
        target_texts(for_target(path), "sft")


def test_questions_are_read_with_and_without_answers(tmp_path: Path) -> None:
    """Turns of one side are joined; a row that is no sample gives its texts of several words.

    The turns of MT-bench are asked one after another, so each is a question.
    """
    path = tmp_path / "exam.jsonl"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ]
    rows = [
        {"id": "q 7", "category": "math", "turns": ["What is it?", "Why is it?"], "score": 3},
        {"messages": messages},
        ["Not a", {"record": "but texts"}],
    ]
    lines = [*map(json.dumps, rows), "no json at all"]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert question_texts(path).rows() == [
        (1, "What is it?", ""),
        (1, "Why is it?", ""),
        (1, "q 7", ""),
        (2, "Be brief.\nOne?\nTwo?", "1\n2"),
        (3, "Not a\nbut texts", ""),
        (4, "no json at all", ""),
    ]
