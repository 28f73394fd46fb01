"""``zip-pipeline versions``, ``status`` and ``quarantine``."""

import os
import re
import shlex
import time
from pathlib import Path

import pytest

from zip_pipeline.cli import status
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.training.tokens import configured_tokens
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.cli.commands import call, call_badly, call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl

_SETTINGS = '[sft]\nstrategy = "random"\nbudget_samples = "25%"\n'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    """Return a data root with one batch, of 20 samples and two bad rows, and one version."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    root = DataRoot(Path("data"))
    root["sft"].raw.mkdir(parents=True)
    (root.path / "zip_pipeline.toml").write_text(_SETTINGS)
    rows = [*sft_records(20), "{", {"instruction": "no answer"}]
    write_jsonl(root["sft"].raw / "a.jsonl", rows)
    _ingest(root, "a.jsonl")
    _select(root)
    return root


def _ingest(root: DataRoot, batch: str) -> None:
    ingest_drop(root["sft"], batch)
    write_state(root["sft"], batch, tokens=configured_tokens(root.path))


def _select(root: DataRoot) -> None:
    select_version(root["sft"], stage_selection(root.path, "sft"), lambda _: None)


def test_versions_are_listed_with_measures_verdict_budget_and_date(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
):
    """One line each, in 80 columns; what was not measured is a dash."""
    measures = {"strategy": "random", "R": 2.345, "L": 1.234, "Z": -1.5}
    law = {**measures, "verdict": "risk", "reason": "Both rise.", "series": "s", "num_tokens": 9}
    (root.path / "zip_pipeline.toml").write_text('[sft]\nstrategy = "random"\nbudget_samples = 7\n')
    _select(root)
    upsert_version(root, {"stage": "sft", "version": 2, **law})
    said = call_well("versions", "--stage", "sft")
    first, second = [line for line in said.splitlines() if "random" in line]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for words in ("1 ", today, "25% of the pool = 5 samples", " - "):
        assert words in first
    for words in ("2 ", today, "7 samples", "1.234", "-1.500", "risk: blocked"):
        assert words in second
    monkeypatch.setattr("zip_pipeline_tests.cli.commands.WIDTH", "80")
    narrow = call_well("versions")
    assert max(map(len, narrow.splitlines())) <= 80
    for words in (today, "1.234", "-1.500", "blocked"):
        assert words in narrow
    assert "No version was selected yet." in narrow


def test_status_tells_what_is_pending(root: DataRoot):
    """Drops that are new or changed, the pool, and whether the newest version is current."""
    said = call_well("status", "--stage", "sft")
    assert "all are ingested" in said
    assert "20 samples in 1 batch, 2 quarantined" in said
    assert "1 of " in said
    assert ", current" in said
    assert "not asked yet" in said
    assert "Next" not in said
    write_jsonl(root["sft"].raw / "b.jsonl", sft_records(5, first=50))
    later = time.time() + 60
    os.utime(root["sft"].raw / "a.jsonl", (later, later))
    (root.path / "zip_pipeline.toml").write_text("[sft]\nbudget_samples = 3\n")
    said = " ".join(call_well("status", "--stage", "sft").split())
    assert "1 drop not ingested: b.jsonl; 1 drop changed since its ingestion: a.jsonl" in said
    assert "not current: pool or settings changed since, a new one is due" in said
    assert "zip-pipeline run # do what is pending" in said
    (root.path / "zip_pipeline.toml").write_text("[sft]\nbudget_samples = 0\n")
    said = " ".join(call_well("status").split())
    assert "unknown whether current: data/zip_pipeline.toml: [sft] budget_samples: got 0" in said
    assert "none yet" in said


_LABEL = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"(zip_pipeline_[a-z_]+)\{{({_LABEL}(?:,{_LABEL})*)\}} (-?[0-9.e+]+)")


def _scraped(text: str) -> dict[str, float]:
    """Return the samples of a text in Prometheus's format, of which each line must be right."""
    found: dict[str, float] = {}
    announced: list[str] = []
    assert text.endswith("\n")
    for line in text.splitlines():
        if about := re.fullmatch(r"# (HELP|TYPE) (\S+) (.+)", line):
            if about[1] == "TYPE":
                assert about[3] == "gauge"
                assert about[2] not in announced
                announced.append(about[2])
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == announced[-1]
        assert f"{sample[1]}{{{sample[2]}}}" not in found
        found[f"{sample[1].removeprefix('zip_pipeline_')}{{{sample[2]}}}"] = float(sample[3])
    return found


def test_status_is_told_to_prometheus(root: DataRoot):
    """What each stage holds and what the law says of it; hostile names of folders are one label."""
    (root.path / 'a"\\\n\x1b').mkdir()
    (root.path / 'a"\\\n\x1b' / "file").write_bytes(b"x" * 10_000)
    (root.path / "again").mkdir()
    os.link(root.path / 'a"\\\n\x1b' / "file", root.path / "again" / "file")
    write_jsonl(root["sft"].raw / "b.jsonl", sft_records(5, first=50))
    before = _scraped(call_well("status", "--prometheus"))
    assert before['pool_samples{stage="sft"}'] == 20
    assert before['pool_batches{stage="sft"}'] == 1
    assert before['quarantined_rows{stage="sft"}'] == 2
    assert before['pending_drops{stage="sft",state="new"}'] == 1
    assert before['version{stage="sft"}'] == 1
    assert abs(before['version_timestamp_seconds{stage="sft"}'] - time.time()) < 600
    assert before['version_is_current{stage="sft"}'] == 1
    assert before['version_is_blocked{stage="sft"}'] == 0
    assert 'probe_loss{stage="sft"}' not in before
    assert before['redundancy{stage="sft"}'] > 1
    assert before['pool_samples{stage="preference"}'] == 0
    assert 'version{stage="preference"}' not in before
    assert before[r'disk_bytes{folder="a\"\\\\n\\x1b"}'] >= 10_000
    assert before['disk_bytes{folder="again"}'] == 0
    measures = {"strategy": "random", "R": 2.345, "L": 1.234, "Z": -1.5}
    law = {**measures, "verdict": "risk", "reason": "Both rise.", "series": "s", "num_tokens": 9}
    upsert_version(root, {"stage": "sft", "version": 1, **law})
    after = _scraped(call_well("status", "--prometheus", "--stage", "sft"))
    assert after['probe_loss{stage="sft"}'] == 1.234
    assert after['quality{stage="sft"}'] == -1.5
    assert after['verdict{stage="sft",verdict="risk"}'] == 1
    assert after['version_is_blocked{stage="sft"}'] == 1
    assert 'pool_samples{stage="preference"}' not in after


def test_sync_and_status_tell_how_the_root_stands_to_its_store(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was published or taken in goes to standard error; a store that fails is told of."""
    assert "Store" not in call_well("status")
    line = "data: is shared by no store; name one as url in the table [store] of its settings"
    assert call_badly("sync") == call_badly("sync", "--clean") == line
    settings = root.path / "zip_pipeline.toml"
    url = f"file://{tmp_path}/store"
    settings.write_text(f'{_SETTINGS}[store]\nurl = "{url}"\n')
    gone = f"{url}: there is no such folder; make it, or correct the address"
    assert call_badly("sync") == gone
    assert f"Store unknown: {gone}\n" in call_well("status")
    (tmp_path / "store").mkdir()
    waiting = "not published yet: batch/sft/a.jsonl, version/sft/1"
    assert f"Store {url}: up to date; {waiting}\n" in call_well("status")
    done = call("sync")
    assert done.exit_code == 0
    assert done.stderr == f"{url}: published batch/sft/a.jsonl and 1 more\n"
    assert done.stdout == f"{url}: at entry 1, nothing to take in or publish.\n"
    assert f"Store {url}: up to date\n" in call_well("status")
    other = DataRoot(Path("other"))
    other.path.mkdir()
    (other.path / "zip_pipeline.toml").write_text(settings.read_text())
    call_well("sync")
    assert f"Store {url}: 1 step behind\n" in call_well("status", "--data-root", "other")
    assert "took in batch/sft/a.jsonl" in call("sync", "--data-root", "other").stderr
    assert other["sft"].versions.numbers() == [1]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert call_well("versions", "--data-root", url) == call_well("versions")
    assert call_badly("versions", "--data-root", "s3://me:secret@pool/x").startswith(
        "data root: is no address of a store; allowed are s3://BUCKET/PREFIX"
    )
    assert "raw/sft/a.jsonl: would be ingested again" in call_badly("sync", "--remove", "a.jsonl")
    call_well("sync", "--remove", "a.jsonl", "--data-root", "other")
    call_well("sync")
    assert root["sft"].batches() == []
    assert "0 files that nothing names removed from the store; 4 wait" in call_well(
        "sync", "--clean"
    )


def test_status_tells_what_the_history_says_has_failed(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As its process prints it; without a history nobody is asked."""
    (tmp_path / "graph_history.py").write_text("print('2026-11-26 02:00, sft/model: no room')\n")
    monkeypatch.setattr(status, "_GRAPH", "graph_history")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert "Failed" not in call_well("status")
    (tmp_path / ".dagster").mkdir()
    assert "Failed 2026-11-26 02:00, sft/model: no room\n" in call_well("status")


def test_quarantine_names_rows_and_reasons(root: DataRoot):
    """Of a drop, of all, of one reason, and no more than are asked for."""
    for arguments in ((), ("a.jsonl",), ("a.jsonl", "--stage", "sft")):
        said = call_well("quarantine", *arguments)
        assert "2 rows: 1 invalid json (a.jsonl row 21), 1 missing field (a.jsonl row 22)" in said
        assert "a.jsonl row 21: invalid json, " in said
        assert '{"instruction": "no answer"}' in said
    assert "No row is quarantined." in call_well("quarantine", "--stage", "preference")
    one = call_well("quarantine", "--reason", "invalid_json")
    assert "row 21" in one
    assert "row 22" not in one
    few = call_well("quarantine", "--limit", "1")
    assert "1 more row; --limit 2 prints all" in few
    assert "no answer" not in few


def test_quarantine_refuses_what_is_not_there(root: DataRoot):
    """Drops and reasons that there are are listed."""
    assert call_badly("quarantine", "b.jsonl") == (
        "DROP: 'b.jsonl' is not ingested; ingested are a.jsonl"
    )
    result = call("quarantine", "--reason", "bad", "--stage", "sft")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: --reason: got 'bad'; the reasons there are invalid_json, missing_field\n"
    )


def test_what_status_says_next_can_be_pasted(root: DataRoot, tmp_path: Path):
    """Also where the data root has a space in its name."""
    place = tmp_path / "my data"
    root.path.rename(place)
    write_jsonl(place / "raw" / "sft" / "b.jsonl", sft_records(5, first=50))
    said = call_well("status", "--data-root", place)
    (line,) = [line for line in said.splitlines() if "zip-pipeline run" in line]
    assert shlex.split(line, comments=True) == ["zip-pipeline", "run", "--data-root", str(place)]
