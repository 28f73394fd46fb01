"""``zip-pipeline select`` from input files to output files."""

import base64
import json
import shlex
from pathlib import Path

import polars as pl
import pytest

from zip_pipeline.cli.console import StageProgress
from zip_pipeline.files import own_folder
from zip_pipeline.selection.run import Progress
from zip_pipeline.selection.strategies import strategies
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.cli.pools import (
    preference_records,
    read_jsonl,
    sft_records,
    write_jsonl,
)
from zip_pipeline_tests.ingest.remote_servers import Hub

_ROUNDS = ("--k1", "60", "--k2", "12", "--k3", "4")
_MANIFEST_KEYS = {
    "strategy",
    "config",
    "seed",
    "num_rows_read",
    "num_samples",
    "num_quarantined",
    "num_duplicates",
    "num_picked",
    "picked_bytes",
    "picked_tokens",
    "unused_budget",
    "compression_ratio",
    "versions",
    "inputs",
    "seconds",
}


def _ledger(out: Path) -> pl.DataFrame:
    return pl.read_parquet(out.with_name(f"{out.stem}.ledger.parquet"))


def _manifest(out: Path) -> dict[str, object]:
    manifest = json.loads(out.with_name(f"{out.stem}.manifest.json").read_text())
    assert isinstance(manifest, dict)
    return manifest


def _picked(out: Path) -> pl.DataFrame:
    picked = _ledger(out).filter(fate="picked").sort("rank")
    assert picked["rank"].to_list() == list(range(1, picked.height + 1))
    return picked


def _records_at(records: list[dict[str, object]], picked: pl.DataFrame) -> list[object]:
    return [records[row - 1] for row in picked["source_row"]]


_OF_PAIRS_ONLY = ("reward_gap",)
_BY_QUALITY = ("car", "score", "alpagasus", "deita", "mig")
_SLOW = ("t_shirt",)


@pytest.mark.parametrize(
    ("stage", "strategy"),
    [
        pytest.param(stage, strategy, marks=[pytest.mark.slow] * (strategy in _SLOW))
        for stage in ("sft", "preference")
        for strategy in strategies.names()
        if stage == "preference" or strategy not in _OF_PAIRS_ONLY
    ],
)
def test_select_gives_input_records_back_in_pick_order(tmp_path: Path, stage: str, strategy: str):
    """With .jsonl the records come back as they were, those that the ledger calls picked."""
    records = sft_records(80) if stage == "sft" else preference_records(80)
    records = [record | {"tags": [f"t{n % 7}"]} for n, record in enumerate(records)]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    out = tmp_path / "out.jsonl"
    options = ("--stage", stage, "--strategy", strategy, "--budget-samples", "30", *_ROUNDS)
    options += ("--signal", "reward_gap.model=tiny")
    if strategy in _BY_QUALITY:
        options += ("--quality", "extra.n" if stage == "sft" else "id")
    call_well("select", source, "-o", out, *options, "--target", source)
    picked = _picked(out)
    assert picked.height == 30
    assert read_jsonl(out) == _records_at(records, picked)


def test_a_signal_alone_is_switched_on(tmp_path: Path):
    """The summary tells what it marked; trace tells of what the sample is a copy."""
    said = "Why does the water of the old harbour rise twice a day, and who wrote it down first?"
    rows = [
        {
            "instruction": f"{said} {n}",
            "output": f"The moon draws it, as {n} wrote in a long letter",
        }
        for n in ("Anna", "Berta")
    ]
    source = write_jsonl(tmp_path / "in.jsonl", rows + sft_records(20))
    out = tmp_path / "out.jsonl"
    options = ("select", source, "-o", out, "--strategy", "random", "--budget-samples", "50")
    summary = call_well(*options, "--signal", "near_duplicates")
    assert "Near duplicate" in summary
    assert "1 sample; of in 1 of 2 " in " ".join(summary.split())


def test_a_selection_by_a_target_says_so(tmp_path: Path):
    """The summary names the file, and trace the score; without a file the option is asked for."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(40))
    target = write_jsonl(tmp_path / "target.jsonl", sft_records(5))
    out = tmp_path / "out.jsonl"
    options = ("select", source, "-o", out, "--strategy", "zip_fit", "--budget-samples", "3")
    said = call_well(*options, "--target", target)
    assert "zip_fit, target " in said
    first = _picked(out)["sample_id"][0]
    told = call_well("trace", first, "--select-ledger", tmp_path / "out.ledger.parquet")
    assert "its mean similarity to the target" in " ".join(told.split())
    assert "--target: zip_fit selects by the samples of a file" in call_badly(*options)


def test_select_writes_the_same_picks_in_every_kind(tmp_path: Path):
    """.json, .jsonl and .parquet hold the same picks in the same order."""
    records = sft_records(60)
    source = write_jsonl(tmp_path / "in.jsonl", records)
    for suffix in ("json", "jsonl", "parquet"):
        out = tmp_path / f"{suffix}.{suffix}"
        call_well("select", source, "-o", out, "--budget-samples", "20", *_ROUNDS)
    listed = json.loads((tmp_path / "json.json").read_text())
    assert len(listed) == 20
    assert listed == read_jsonl(tmp_path / "jsonl.jsonl")
    table = pl.read_parquet(tmp_path / "parquet.parquet")
    assert [json.loads(raw) for raw in table["raw"]] == listed
    assert table["rank"].to_list() == list(range(1, 21))
    assert table["sample_id"].to_list() == _picked(tmp_path / "json.json")["sample_id"].to_list()


@pytest.mark.parametrize(("unit", "budget"), [("samples", 7), ("tokens", 900), ("bytes", 3000)])
def test_select_manifest_adds_up(tmp_path: Path, unit: str, budget: int):
    """Counts, sizes and what is left of each kind of budget agree with the ledger."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(60))
    out = tmp_path / "out.parquet"
    call_well("select", source, "-o", out, f"--budget-{unit}", str(budget), *_ROUNDS)
    manifest, picked = _manifest(out), _picked(out)
    used = {
        "samples": picked.height,
        "tokens": picked["num_tokens"].sum(),
        "bytes": picked["num_bytes"].sum(),
    }
    assert manifest.keys() >= _MANIFEST_KEYS
    assert manifest["num_picked"] == picked.height > 0
    assert manifest["picked_bytes"] == used["bytes"]
    assert manifest["picked_tokens"] == used["tokens"]
    assert manifest["tokens_of"] == "plain text"
    assert manifest["unused_budget"] == budget - used[unit] >= 0
    assert set(manifest["seconds"]) == {"ingest", "state", "select", "measure", "write"}
    assert all(value >= 0 for value in manifest["seconds"].values())
    assert list(manifest["inputs"]) == ["in.jsonl"]


def test_select_accounts_for_every_row(tmp_path: Path):
    """Rows read = samples + quarantined + duplicates, over inputs and inside them."""
    records = sft_records(40)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [*records[:20], records[0], "{broken"])
    write_jsonl(tmp_path / "b.jsonl", [*records[20:], records[3], {"instruction": "no answer"}])
    out = tmp_path / "out" / "x.json"
    text = call_well("select", folder, tmp_path / "b.jsonl", "-o", out, "--budget-samples", "5")
    manifest, ledger = _manifest(out), _ledger(out)
    counts = {name: manifest[f"num_{name}"] for name in ("rows_read", "samples", "quarantined")}
    assert counts == {"rows_read": 44, "samples": 40, "quarantined": 2}
    assert manifest["num_duplicates"] == 2
    assert sum(manifest["quarantine_reasons"].values()) == 2
    assert "44 = 40 samples + 2 quarantined + 2 duplicates" in text
    places = ("batch", "source_row", "duplicate_of_batch", "duplicate_of_row")
    assert sorted(ledger.filter(fate="duplicate").select(places).rows()) == [
        ("b.jsonl", 21, "folder", 4),
        ("folder", 21, "folder", 1),
    ]
    assert ledger.height == 42


def test_select_names_inputs_of_one_name_by_their_paths(tmp_path: Path):
    """Two inputs of the same file name stay apart."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "x.jsonl", sft_records(9, first=len(name) * 7))
    inputs = [tmp_path / "one" / "x.jsonl", tmp_path / "two" / "x.jsonl"]
    out = tmp_path / "out.json"
    call_well("select", *inputs, "-o", out, "--budget-samples", "5")
    assert sorted(_manifest(out)["inputs"]) == sorted(map(str, inputs))


def test_select_does_not_depend_on_workers(tmp_path: Path):
    """One worker and three give the same bytes."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(80))
    for workers in ("1", "3"):
        out = tmp_path / f"{workers}.jsonl"
        options = ("--budget-bytes", "4000", "--workers", workers, *_ROUNDS)
        call_well("select", source, "-o", out, *options)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "3.jsonl").read_bytes() != b""


def test_select_says_once_when_it_uses_fewer_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One line names the option as typed, the cores and what is used."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(80))
    out = tmp_path / "out.jsonl"
    for workers, line in (
        ("8", ""),
        ("100000", "--workers: 100000 is more than this machine's 2 cores can use; 8 are used\n"),
    ):
        options = ("--budget-bytes", "4000", "--workers", workers, *_ROUNDS, "--force")
        result = call("select", source, "-o", out, *options)
        assert (result.exit_code, result.stderr) == (0, line)


def test_select_takes_all_that_a_budget_covers_and_says_so(tmp_path: Path):
    """The summary says that nothing was chosen, and so does trace."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(12))
    out = tmp_path / "out.jsonl"
    said = call_well("select", source, "-o", out, "--budget-samples", "1000")
    assert "988 unused: it covers all that could be picked, so everything is" in said
    assert "Left" not in said
    assert len(read_jsonl(out)) == 12
    assert _manifest(out)["unused_budget"] == 988
    first = _picked(out)["sample_id"][0]
    told = call_well("trace", first, "--select-ledger", tmp_path / "out.ledger.parquet")
    assert "picked, as the budget covers all that could be picked" in told


def test_select_takes_a_share_of_the_pool(tmp_path: Path):
    """The summary tells the share as typed and what it came to."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(80))
    out = tmp_path / "out.jsonl"
    said = call_well("select", source, "-o", out, "--budget-samples", "25%", *_ROUNDS)
    assert "25% of the pool = 20 samples, 0 unused" in said
    assert len(read_jsonl(out)) == 20
    assert _manifest(out)["config"]["budget_samples"] == "25%"
    line = call_badly("select", source, "-o", tmp_path / "o.jsonl", "--budget-bytes", "0.1%")
    assert line.startswith("--budget-bytes: got 0.1%, which is ")
    assert "or more" in line
    assert not (tmp_path / ".o.checkpoint").exists()


def test_select_replaces_an_output_only_by_force(tmp_path: Path):
    """What is there stays as it is, and the refusal names the option."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(20))
    out = tmp_path / "out.jsonl"
    options = ("select", source, "-o", out, "--budget-samples")
    call_well(*options, "5")
    before = {path: path.read_bytes() for path in tmp_path.glob("out.*")}
    assert call_badly(*options, "6") == (
        f"{out}: exists; give --force to replace it and what stands beside it, or another --output"
    )
    assert {path: path.read_bytes() for path in tmp_path.glob("out.*")} == before
    call_well(*options, "6", "--force")
    assert len(read_jsonl(out)) == 6


def test_select_names_quarantined_rows(tmp_path: Path):
    """The first of each reason by file and row, and the file that has all."""
    rows = [*sft_records(9), "{", *({"instruction": f"no answer {n}"} for n in range(5))]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    said = call_well("select", source, "-o", tmp_path / "o.jsonl", "--budget-samples", "3")
    words = " ".join(said.split())
    assert (
        "5 missing field (in.jsonl rows 11, 12, 13, …), 1 invalid json (in.jsonl row 10)" in words
    )
    assert "o.quarantine.parquet" in said
    broken = write_jsonl(tmp_path / "broken.jsonl", ["{"])
    assert call_badly("select", broken, "-o", tmp_path / "x.jsonl", "--budget-samples", "3") == (
        "no sample in broken.jsonl: 1 row read, quarantined: 1 invalid json (broken.jsonl row 1); "
        "check stage and format"
    )


def test_what_select_says_next_can_be_pasted(tmp_path: Path):
    """Names with spaces are quoted, what a line is for is a comment, and no line is broken."""
    folder = tmp_path / "my data, of a name that is so long that it does not fit into one line"
    folder.mkdir()
    source = write_jsonl(folder / "in.jsonl", sft_records(20))
    said = call_well("select", source, "-o", folder / "o.jsonl", "--budget-samples", "5")
    (line,) = [line.strip() for line in said.splitlines() if "zip-pipeline trace" in line]
    command, *arguments = shlex.split(line, comments=True)
    assert command == "zip-pipeline"
    assert "picked as number 1" in call_well(*arguments)
    assert "# why" in line


def test_select_keeps_quotas(tmp_path: Path):
    """A source takes at most its share, and those left out for it say so."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(80))
    out = tmp_path / "out.jsonl"
    options = ("--budget-samples", "20", "--quota", "even=25%", *_ROUNDS)
    call_well("select", source, "-o", out, *options)
    counts = dict(_picked(out)["source"].value_counts().iter_rows())
    assert counts["even"] <= 5
    assert sum(counts.values()) == 20
    assert _manifest(out)["config"]["quotas"] == {"even": [None, 0.25]}


def test_select_summary_tells_what_was_done(tmp_path: Path):
    """The summary names strategy, ratios, sources and the files."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(30))
    options = ("--strategy", "zip", "--budget-samples", "3")
    text = call_well("select", source, "-o", tmp_path / "x.json", *options)
    for words in (
        "zip, deflate level 9, k1 10,000, k2 200, k3 100",
        "30 = 30 samples + 0 quarantined + 0 duplicates",
        "3 samples (10.0%)",
        "3 samples, 0 unused",
        "R of subset",
        "x.ledger.parquet, x.manifest.json",
        "even",
    ):
        assert words in text


def test_select_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C says how to go on; --resume starts at the checkpoint and ends with the same picks."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(90))
    options = ("--strategy", "zip", "--budget-samples", "60", *_ROUNDS)
    call_well("select", source, "-o", tmp_path / "whole.jsonl", *options)
    rounds: list[int] = []
    original = StageProgress.show_round

    def stop_at_8(_: StageProgress, report: Progress) -> None:
        rounds.append(report.round)
        if report.round == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(StageProgress, "show_round", stop_at_8)
    out = tmp_path / "out.jsonl"
    result = call("select", source, "-o", out, *options)
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    assert not out.exists()
    rounds.clear()
    monkeypatch.setattr(
        StageProgress,
        "show_round",
        lambda bars, report: (
            original(bars, report)
            if report.is_estimate or report.is_resumption
            else rounds.append(report.round)
        ),
    )
    resumed = call("select", source, "-o", out, *options, "--resume")
    assert resumed.exit_code == 0
    # Checkpoints are written every third round.
    assert rounds[0] == 7
    assert resumed.stderr == "Selecting: resumed after round 6, 24 of 60 samples picked\n"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / ".out.checkpoint").exists()


def test_select_in_shards_picks_the_same_wherever_they_are_done(tmp_path: Path):
    """One after another, killed and resumed: the same OUT; the manifest names the shards."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(90))
    options = ("--budget-samples", "30", "--strategy", "long_range", *_ROUNDS, "--shards", "3")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    call_well("select", source, "-o", whole, *options)
    told = call_well("select", source, "-o", out, *options, "--shard-folder", tmp_path / "shards")
    assert ", in 3 shards" in told
    assert out.read_bytes() == whole.read_bytes()
    assert len(read_jsonl(whole)) == 30
    assert _manifest(whole)["sharding"] == {"num_shards": 3, "shard_budget": 20}
    assert set(_ledger(whole)["shard"]) == {0, 1, 2}


@pytest.mark.slow
def test_select_in_shards_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """--resume keeps what the shards have picked already."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(90))
    options = ("--strategy", "zip", "--budget-samples", "60", *_ROUNDS, "--shards", "2")
    call_well("select", source, "-o", tmp_path / "whole.jsonl", *options)

    def stop_at_merge(_: StageProgress, report: Progress) -> None:
        if report.phase == "Merging":
            raise KeyboardInterrupt

    original = StageProgress.show_round
    monkeypatch.setattr(StageProgress, "show_round", stop_at_merge)
    out = tmp_path / "out.jsonl"
    assert call("select", source, "-o", out, *options).exit_code == 130
    stored = list((tmp_path / ".out.checkpoint").rglob("checkpoint.npz"))
    assert len(stored) == 2
    monkeypatch.setattr(StageProgress, "show_round", original)
    call_well("select", source, "-o", out, *options, "--resume")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not (tmp_path / ".out.checkpoint").exists()


def test_resume_refuses_other_options_and_says_where_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Another budget is named beside the one of the killed run; its checkpoint stays."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(90))
    out = tmp_path / "out.jsonl"
    options = ("select", source, "-o", out, "--strategy", "zip", *_ROUNDS, "--budget-samples")
    nothing = call(*options, "60", "--resume")
    assert nothing.stderr == (
        f"Nothing to resume: no run of {out} was stopped. The selection starts from the "
        "beginning.\n"
    )
    out.unlink()

    def stop_at_8(_: StageProgress, report: Progress) -> None:
        if report.round == 8:
            raise KeyboardInterrupt

    original = StageProgress.show_round
    monkeypatch.setattr(StageProgress, "show_round", stop_at_8)
    call(*options, "60")
    monkeypatch.setattr(StageProgress, "show_round", original)
    for changed in (("50",), ("60", "--seed", "3")):
        line = call_badly(*options, *changed, "--resume")
        was, now = ("--budget-samples 60", "--budget-samples 50")
        was, now = (was, now) if changed == ("50",) else ("--seed 0", "--seed 3")
        assert line == (
            f"--resume: the run of {out} that was stopped has {was}, got {now}; give the same "
            "options, or leave --resume out to start anew"
        )
    write_jsonl(source, sft_records(91))
    anew = call(*options, "60", "--resume")
    assert anew.exit_code == 0
    assert anew.stderr == (
        "Not resumed: the inputs are not those of the run that was stopped. The selection started "
        "from the beginning.\n"
    )


def test_select_without_resume_starts_anew(tmp_path: Path):
    """A stale checkpoint is removed unless --resume asks for it."""
    source = write_jsonl(tmp_path / "in.jsonl", sft_records(10))
    stale = tmp_path / ".out.checkpoint" / "stale"
    with own_folder(stale.parent, "a killed selection"):
        stale.write_text("left over")
    call_well("select", source, "-o", tmp_path / "out.json", "--budget-samples", "2")
    assert not stale.exists()


def test_select_reads_the_sidecar_of_a_drop(tmp_path: Path):
    """A drop is read as its sidecar says; the sidecar, given itself, is no input."""
    folder = tmp_path / "raw" / "sft"
    folder.mkdir(parents=True)
    source = write_jsonl(folder / "b.jsonl", sft_records(6))
    sidecar = folder / "b.jsonl.batch.toml"
    sidecar.write_text('source = "named"\n')
    out = tmp_path / "out.json"
    call_well("select", source, sidecar, "-o", out, "--budget-samples", "2")
    assert set(_ledger(out)["source"]) == {"named"}


@pytest.mark.server
def test_select_from_an_address_is_select_from_the_file(tmp_path: Path, hub: Hub) -> None:
    """Besides files or instead of them; the summary says what was read."""
    path = write_jsonl(tmp_path / "train.jsonl", sft_records(30))
    sha = hub.commit("org/name", {"train.jsonl": path.read_bytes(), "test.jsonl": b"{}"})
    address = "hf://datasets/org/name@main"
    budget = (*_ROUNDS, "--budget-samples", "5")
    call_well("select", path, "-o", tmp_path / "local.jsonl", *budget)
    shown = call_well("select", "--from", address, "-o", tmp_path / "o.jsonl", *budget)
    assert (tmp_path / "o.jsonl").read_text() == (tmp_path / "local.jsonl").read_text()
    assert f"{address}, {sha}" in shown
    assert "of test or validation splits: test.jsonl" in " ".join(shown.split())
    call_well("select", path, "--from", address, "-o", tmp_path / "o.jsonl", *budget, "--force")
    assert _manifest(tmp_path / "o.jsonl")["num_duplicates"] == 30


def test_select_from_nothing_is_refused(tmp_path: Path) -> None:
    """With what may be named."""
    assert call_badly("select", "-o", tmp_path / "o.jsonl", "--budget-samples", "1") == (
        "nothing to select from; name files or folders, or --from an address"
    )


def test_the_noise_guard_is_turned_on_and_off(tmp_path: Path) -> None:
    """The summary tells what it marked, and the strategy what it does unasked."""
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n} by any count."} for n in range(9)]
    rows.append({"instruction": "Why?", "output": base64.b64encode(bytes(range(99))).decode()})
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = {}
    for options in ("long_range", "long_range --no-noise-guard", "zip", "zip --noise-guard"):
        arguments = ["--budget-samples", "3", "--force", "--strategy", *options.split()]
        shown = call_well("select", tmp_path / "a.jsonl", "-o", tmp_path / "o.jsonl", *arguments)
        told[options] = "1 sample (10.00%): 1 its answer is base64" in shown
    assert list(told.values()) == [True, False, False, True]
