"""A selection from any source, what it tells of each sample, and its three files."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.report.trace import trace_in_ledger
from zip_pipeline.selection.config import BUDGETS, SelectionConfig
from zip_pipeline.selection.run import Progress
from zip_pipeline.training.base_model import tiny_tokenizer
from zip_pipeline.training.rows import answer_rows, conversation_rows
from zip_pipeline.workflow.selections import (
    OutputFiles,
    Selection,
    SelectJob,
    run_job,
    select,
    select_texts,
    write_records,
)
from zip_pipeline.workflow.sources import read
from zip_pipeline_tests.cli.commands import call_well
from zip_pipeline_tests.cli.pools import preference_records, read_jsonl, sft_records, write_jsonl

_LEDGER = pl.DataFrame({"sample_id": ["a"], "fate": ["picked"]})


def _publish(files: OutputFiles, text: str) -> None:
    with files.open(resume=False):
        _publish_opened(files, text)


def _publish_opened(files: OutputFiles, text: str) -> None:
    content: dict[str, object] = {"text": text, "output": files.out.name}
    tables = {files.ledger: _LEDGER}
    files.publish(lambda path: path.write_text(text), tables, lambda: content)


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


def test_what_was_refused_stands_beside_out(tmp_path: Path):
    """Quarantine and duplicates are tables beside it; where there are none, older ones go."""
    source, out = tmp_path / "in.jsonl", tmp_path / "o.jsonl"
    good, bad = '{"question": "q", "answer": "a"}\n', '{"question": "q"}\n'
    source.write_text(good + bad + good)
    job = SelectJob(
        source=source,
        stage="sft",
        config=SelectionConfig(strategy="zip", budget_samples=1),
        files=OutputFiles(out),
    )
    selection = run_job(job)
    quarantine = pl.read_parquet(tmp_path / "o.quarantine.parquet")
    assert quarantine["reason"].to_list() == selection.quarantine["reason"].to_list()
    assert quarantine["raw"].to_list() == [bad.strip()]
    assert pl.read_parquet(tmp_path / "o.duplicates.parquet")["source_row"].to_list() == [3]
    source.write_text(good)
    run_job(job)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["in.jsonl", "o.jsonl", "o.ledger.parquet", "o.manifest.json"]


def test_publish_keeps_the_older_selection_when_writing_fails(tmp_path: Path):
    """When the new files cannot be completed the old ones stay, all three."""
    files = OutputFiles(tmp_path / "x.json")
    _publish(files, "old")

    def fail() -> dict[str, object]:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), files.open(resume=False):
        files.publish(lambda path: path.write_text("new"), {files.ledger: _LEDGER}, fail)
    assert files.out.read_text() == "old"
    assert json.loads(files.manifest.read_text()) == {"text": "old", "output": "x.json"}


@pytest.mark.parametrize("strategy", ["zip", "long_range"])
def test_temporary_files_that_are_removed_meanwhile_are_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
):
    """As a cleaner of temporary folders does; nothing is written, and nothing is a bug."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    class Cleaner:
        def stage(self, words: str) -> None:
            if words.startswith("Measuring"):
                for folder in temporary.iterdir():
                    shutil.rmtree(folder)

        def show_round(self, progress: Progress) -> None:
            pass

    config = SelectionConfig(budget_samples=5, strategy=strategy)
    job = SelectJob(source=pl.DataFrame(sft_records(40)), stage="sft", config=config)
    with pytest.raises(UserError, match=r"temporary/.*: No such file.*name another one in TMPDIR"):
        run_job(job, Cleaner())


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
        pytest.raises(ValueError, match=r"x\.manifest\.json: belongs to x\.json, and x\.parquet"),
        second.open(resume=False),
    ):
        pass
    assert json.loads(first.manifest.read_text())["output"] == "x.json"
    first.out.unlink()
    _publish(second, "second")
    assert json.loads(first.manifest.read_text())["output"] == "x.parquet"


@pytest.mark.parametrize(
    "name", ["x.manifest.json", "x.ledger.parquet", "x.quarantine.parquet", "x.duplicates.parquet"]
)
def test_open_refuses_to_replace_what_no_selection_wrote(tmp_path: Path, name: str):
    """A file that happens to be called as the ledger or the manifest would be is kept."""
    (tmp_path / name).write_bytes(b'{"accounts": 2026}')
    with (
        pytest.raises(ValueError, match=f"{name}: was not written by a selection"),
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
    with pytest.raises(ValueError, match=r"no name for a subset; allowed are \*\.jsonl"):
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


_ROUNDS: dict[str, Any] = {"k1": 20, "k2": 10, "k3": 5}


def _small() -> Selection:
    """Return three of six records, of which one repeats another and one is too long."""
    long = {"instruction": "long", "output": "word " * 200, "source": "essays"}
    return select([*sft_records(4), sft_records(1)[0], long], budget_bytes=300, **_ROUNDS)


@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
def test_select_is_the_command(tmp_path: Path, strategy: str):
    """One source gives the same files from Python and from the command line."""
    source = write_jsonl(tmp_path / "in.jsonl", [*sft_records(40), "{"])
    rounds = ("--k1", "20", "--k2", "10", "--k3", "5", "--strategy", strategy)
    call_well("select", source, "-o", tmp_path / "a.jsonl", "--budget-tokens", "900", *rounds)
    selection = select(source, budget_tokens=900, strategy=strategy, **_ROUNDS)
    selection.write(tmp_path / "b.jsonl")
    records = read_jsonl(tmp_path / "a.jsonl")
    assert records == read_jsonl(tmp_path / "b.jsonl") == selection.records() != []
    ledgers = [pl.read_parquet(tmp_path / f"{name}.ledger.parquet") for name in "ab"]
    assert ledgers[0].equals(ledgers[1])
    assert ledgers[0].equals(selection.ledger)
    manifests = [json.loads((tmp_path / f"{name}.manifest.json").read_text()) for name in "ab"]
    assert manifests[0].pop("output") == "a.jsonl"
    assert manifests[1].pop("output") == "b.jsonl"
    assert [manifest.pop("created_at") and manifest.pop("seconds").keys() for manifest in manifests]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("unit", ["tokens", "target_tokens"])
@pytest.mark.parametrize("strategy", ["zip", "long_range", "random"])
def test_a_preset_counts_what_its_trainer_reads(tmp_path: Path, unit: str, strategy: str):
    """Rows of the picks are within the budget; ledger, manifest and a line say whose tokens."""
    records = sft_records(60)
    for number, record in enumerate(records):
        # Some answers are ten times as long as others, and their questions are not.
        record["output"] = " ".join(f"{number * n % 97}" for n in range(number % 7 * 10 + 1))
    options = {f"budget_{unit}": 700, "strategy": strategy, "preset": "tiny", **_ROUNDS}
    selection = select(records, **options)
    rows = conversation_rows(selection.subset, "sft", tiny_tokenizer(), 1 << 30).counts
    manifest = selection.manifest
    assert manifest["picked_tokens"] == rows.num_tokens
    assert manifest["picked_target_tokens"] == rows.num_target_tokens
    used = {"tokens": rows.num_tokens, "target_tokens": rows.num_target_tokens}[unit]
    assert used == 700 - manifest["unused_budget"] > 500
    assert manifest["tokenizer"] == "tiny, template tiny"
    assert manifest["tokens_of"] == "chat template"
    facts = f"{rows.num_tokens:,} tokens of the chat template (tiny, template tiny), "
    facts += f"{rows.num_target_tokens} are targets"
    assert facts in repr(selection)
    source, place = write_jsonl(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    budget = (f"--budget-{unit.replace('_', '-')}", "700", "--strategy", strategy)
    rounds = ("--k1", "20", "--k2", "10", "--k3", "5")
    output = call_well("select", source, "-o", place, *budget, *rounds, "--preset", "tiny")
    assert facts in " ".join(output.split())
    assert f"700 {unit.replace('_', ' ')} of the chat template, " in output
    assert read_jsonl(place) == selection.records()


def test_a_pair_costs_what_its_two_rows_cost():
    """So KTO reads no more than the budget."""
    records = preference_records(30)
    selection = select(records, stage="preference", budget_tokens=900, preset="tiny", **_ROUNDS)
    rows = answer_rows(selection.subset, tiny_tokenizer(), 1 << 30).counts
    assert rows.num_rows == 2 * len(selection) > 0
    assert rows.num_tokens == 900 - selection.manifest["unused_budget"]


def test_select_takes_records_a_pool_and_a_configuration():
    """However source and options are given, the picks are those of the records."""
    records = preference_records(20)
    config = SelectionConfig(budget_samples=6, **_ROUNDS)
    picks = select(records, config, stage="preference").records()
    assert len(picks) == 6
    assert select(read(records, "preference"), config).records() == picks
    assert select(iter(records), stage="preference", budget_samples=6, **_ROUNDS).records() == picks


def test_select_as_published_takes_records_too():
    """The published algorithm takes every record as it comes, no sample or not."""
    records = [{"id": n, "text": f"{n * n % 17} {n * 3 % 5}"} for n in range(12)]
    selection = select(records, budget_samples=5, reference_compat=True, **_ROUNDS)
    assert len(selection.records()) == 5
    with pytest.raises(ValueError, match="reference_compat: got a pool; "):
        select(read(sft_records(3)), budget_samples=2, reference_compat=True)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((sft_records(2),), {}, f"give exactly one of {', '.join(BUDGETS)}"),
        (
            (sft_records(2),),
            {"budget_target_tokens": 9},
            "name the model that you train by a preset",
        ),
        (
            (sft_records(2),),
            {"budget_tokens": 9, "preset": "tiny", "tokenizer": "other"},
            "preset: got one and a tokenizer; a preset brings its own, give one of them",
        ),
        ((sft_records(2),), {"budget_tokens": 9, "preset": "huge"}, "preset: got 'huge'; allowed"),
        (
            (sft_records(2),),
            {"budget_samples": 1, "reference_compat": True, "preset": "tiny"},
            "reference_compat: takes rows that need not be samples",
        ),
        (
            (sft_records(2), SelectionConfig(strategy="zip", budget_samples=1)),
            {"k1": 3},
            "got config and k1; ",
        ),
        ((sft_records(2),), {"budget_samples": 1, "straategy": "zip"}, "straategy"),
        (
            ([{"odd": 1}],),
            {"budget_samples": 1},
            "no sample in records: 1 row read, quarantined: 1 unknown",
        ),
        ((sft_records(2),), {"budget_samples": 1, "stage": "dpo"}, "stage: got 'dpo'"),
    ],
)
def test_select_refuses_in_words(arguments: Any, options: Any, message: str):
    """What cannot be used is named with what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        select(*arguments, **options)


def test_why_is_what_trace_says(tmp_path: Path):
    """Of every sample, by its id or its first digits."""
    selection = _small()
    selection.write(tmp_path / "x.parquet")
    ids = selection.ledger["sample_id"].unique().to_list()
    assert len(ids) == 5
    for sample_id in ids:
        (fate,) = trace_in_ledger(tmp_path / "x.ledger.parquet", sample_id).fates
        assert selection.why(sample_id) == selection.why(sample_id[:8]) == fate.why
    with pytest.raises(ValueError, match="no sample 00000000"):
        selection.why("0" * 32)


def test_records_of_one_source_compete_in_clusters(tmp_path: Path):
    """From Python and by the command; `why` and `trace` name the cluster."""
    records = [
        {"instruction": f"What is {n} and {n}?" * (1 + n % 3), "output": f"It is {n * 2}."}
        for n in range(120)
    ]
    selection = select(records, budget_samples=36, strategy="long_range")
    shares = selection.manifest["mixture"].values()
    assert [cluster["used"] for cluster in shares] == [cluster["allotted"] for cluster in shares]
    pool, out = write_jsonl(tmp_path / "pool.jsonl", records), tmp_path / "out.jsonl"
    printed = call_well(
        "select", pool, "-o", out, "--budget-samples", "36", "--strategy", "long_range"
    )
    assert re.search(r"Mixture +natural, [2-8] clusters", printed)
    ledger = tmp_path / "out.ledger.parquet"
    assert pl.read_parquet(ledger)["competed_in"].equals(selection.ledger["competed_in"])
    told = selection.ledger.row(50, named=True)
    (fate,) = trace_in_ledger(ledger, told["sample_id"]).fates
    assert fate.why.endswith(f"; it competed in {told['competed_in']}")
    assert selection.why(told["sample_id"]) == fate.why


def test_left_out_tells_for_whom_and_why():
    """Those not picked, by fate and by source, with the sample that stands for a copy."""
    selection = _small()
    left = selection.left_out()
    assert len(left) == len(selection.ledger) - len(selection)
    copies = selection.left_out("duplicate")
    assert copies.select("source_row", "duplicate_of_row", "why").rows() == [
        (5, 1, "an exact copy of records, row 1, which took part in its place")
    ]
    (essay,) = selection.left_out(source="essays").iter_rows(named=True)
    assert (essay["source_row"], essay["fate"]) == (6, "over_budget")
    assert essay["why"] == (
        "others went before it, and its 1,023 bytes did not fit what was left of the budget (24 in "
        "the end); its last known gain was 0.1527; the last pick, number 2, had 0.5899, and none "
        "of its source essays was picked (highest first)"
    )
    assert selection.left_out("duplicate", "essays").is_empty()
    with pytest.raises(ValueError, match="fate: got 'picked'; allowed are never_reached, "):
        selection.left_out("picked")


def test_notebooks_show_a_selection_and_read_no_html_in_its_data():
    """The table has the figures and sources; markup in names is shown as it is."""
    records = [record | {"source": "<i>x</i>"} for record in sft_records(5)]
    selection = select(records, budget_samples=2, **_ROUNDS)
    html = selection._repr_html_()
    assert "<th>picked</th><td>2 of 5 samples</td>" in html
    assert "<th>source &lt;i&gt;x&lt;/i&gt;</th><td>2 of 5</td>" in html
    assert "<i>" not in html
    assert repr(selection).startswith("<Selection: picked 2 of 5 samples, budget 2 samples, ")


def test_select_texts_takes_any_texts(tmp_path: Path):
    """Copies stand behind the first, and the files hold each text as a record."""
    texts = ["apples and pears " * 9, "7 3 9 1 5 2 8", "7 3 9 1 5 2 8", "Ärger\n"]
    selection = select_texts(texts, strategy="zip", budget_samples=2, **_ROUNDS)
    assert selection.subset["text"].to_list() == ["Ärger\n", "7 3 9 1 5 2 8"]
    assert selection.subset["source_row"].to_list() == [4, 2]
    assert selection.left_out("duplicate")["duplicate_of_row"].to_list() == [2]
    selection.write(tmp_path / "x.jsonl")
    assert read_jsonl(tmp_path / "x.jsonl") == [{"text": "Ärger\n"}, {"text": "7 3 9 1 5 2 8"}]
    with pytest.raises(ValueError, match="texts: got none"):
        select_texts([], budget_samples=2)
    with pytest.raises(ValueError, match="reference_compat: takes records"):
        select_texts(texts, budget_samples=2, reference_compat=True)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("abc", "texts: got a str; give a list of texts"),
        (None, "texts: got a NoneType; give a list"),
        (["a", 1], "texts: number 2 is a int; give texts alone"),
        (["\ud800"], "texts: number 1 holds half a surrogate pair"),
    ],
)
def test_select_texts_refuses_what_is_no_text(texts: Any, message: str):
    """The message names the place and what came."""
    with pytest.raises(ValueError, match=message):
        select_texts(texts, budget_samples=1)


def _answers(num: int, words: str) -> list[dict[str, str]]:
    return [{"instruction": f"Say {n}.", "output": f"{words} {n}. " * 30} for n in range(num)]


def test_a_trusted_file_says_how_compressible_answers_may_be(tmp_path: Path) -> None:
    """What the pool is full of is noise where no trusted answer is like it."""
    pool = _answers(20, "It is as it was before")
    trusted = tmp_path / "trusted.jsonl"
    plain = [
        {"instruction": f"Say {n}.", "output": " ".join(f"{n * k % 9973}" for k in range(2, 50))}
        for n in range(10_000, 10_120)
    ]
    trusted.write_text("\n".join(map(json.dumps, plain)))
    options = {"strategy": "long_range", "budget_samples": 3, "workers": 1}
    assert len(select(pool, **options)) == 3
    selection = select(pool, **options, trusted=str(trusted))
    assert len(selection) == 0
    words = (
        "marked as noise: its answer is far more repetitive than others of its source and length"
    )
    told = selection.left_out("noise")["why"]
    assert told.str.starts_with(f"{words} (ratio ").all()
    assert selection.manifest["noise"]["reasons"].keys() == {
        words.removeprefix("marked as noise: ")
    }


def test_a_trusted_file_that_is_not_there_or_too_small_is_refused(tmp_path: Path) -> None:
    """The message names the file and says how much is needed."""
    path = tmp_path / "few.jsonl"
    options = {"strategy": "long_range", "budget_samples": 3, "trusted": str(path)}
    with pytest.raises(UserError, match=r"^trusted: .*few\.jsonl: no such file"):
        select(_answers(5, "word"), **options)
    path.write_text("\n".join(map(json.dumps, _answers(5, "some words in a row, again"))))
    with pytest.raises(UserError, match=r"^trusted: got 5 samples, .* needed are 100 for a band"):
        select(_answers(5, "word"), **options)
