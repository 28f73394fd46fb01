"""No command sends control characters of the data to the terminal, or reads data as markup."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from zip_pipeline.cli import app, run
from zip_pipeline.data_root import DataRoot
from zip_pipeline.entropy_law.table import upsert_version
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import read_batch, write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.select import select
from zip_pipeline_tests.cli.pools import write_jsonl

# Sets the clipboard, clears the screen, colours by a C1 control, turns the text round.
HOSTILE = "\x1b]52;c;cHduZWQ=\x07\x1b[2J\x9b31m\x7f\x08\u202e\u2066[bold]:smile:"
SHOWN = r"\x1b]52;c;cHduZWQ=\x07\x1b[2J\x9b31m\x7f\x08\u202e\u2066[bold]:smile:"
SOURCE = f"{HOSTILE}[/]\r\n\tend"
SHOWN_SOURCE = f"{SHOWN}[/]" + r"\r\n\tend"
FILE = f"{HOSTILE}.jsonl"
# Polars takes a bracket in a path for a pattern.
FOLDER = HOSTILE.replace("[", "")
MARK = r"\x1b]52;c;cHduZWQ=\x07\x1b"
_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WIDE = {"COLUMNS": "4000"}

Calls = list[Sequence[str | Path]]


def _records(num: int, first: int = 0) -> list[object]:
    texts = (f"{number}: {HOSTILE}[/]" for number in range(first, first + num))
    return [{"instruction": text, "output": f"Yes: {text}", "source": SOURCE} for text in texts]


def _write_version(root: DataRoot, num_samples: int, inputs: dict[str, str]) -> None:
    table = read_batch(root["sft"], FILE)
    config = SelectionConfig(strategy="random", budget_samples=num_samples)
    selection = select(table, None, "sft", config, inputs=inputs)
    manifest = selection.manifest | {"quarantine_reasons": {}, "tokenizer": HOSTILE}
    root["sft"].versions.write(selection.subset(table), selection.ledger, manifest)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Return a data root whose path, batch, source, texts and verdict are hostile."""
    root = DataRoot(tmp_path_factory.mktemp("hostile") / FOLDER)
    root["sft"].raw.mkdir(parents=True)
    for first, name in ((0, FILE), (6, f"2{FILE}"), (12, f"3{FILE}")):
        write_jsonl(root["sft"].raw / name, _records(6, first))
        ingest_drop(root["sft"], name)
    _write_version(root, 2, {})
    _write_version(root, 4, {FILE: "changed"})
    row = {"stage": "sft", "version": 2, "strategy": HOSTILE, "num_tokens": 9, "series": "s"}
    measures = {"R": 3.5, "R_spread": 0.25, "L": 1.5}
    upsert_version(root, row | measures | {"verdict": "first", "reason": HOSTILE})
    return root


def _sample_id(root: DataRoot) -> str:
    return str(read_batch(root["sft"], FILE)["sample_id"][0])


def _demo(root: DataRoot, _folder: Path) -> Calls:
    return [["demo", "--data-root", root.path], ["demo", "--data-root", _folder / FOLDER]]


def _sample_data(_root: DataRoot, folder: Path) -> Calls:
    return [["sample-data", folder / FOLDER, "--scale", "0.02", "--state", "x1"]]


def _run(root: DataRoot, folder: Path) -> Calls:
    return [["run", "--data-root", root.path], ["run", "--data-root", folder / FOLDER]]


def _select(root: DataRoot, folder: Path) -> Calls:
    budget = ["--budget-samples", "2", "--no-noise-guard"]
    drop = root["sft"].raw / FILE
    good = ["select", drop, "-o", folder / FILE, "--force", *budget]
    return [
        good,
        [*good, "--quota", f"{SOURCE}=0.5"],
        [*good, "--quota", f"{HOSTILE}=0.5"],
        [*good, "--reference-compat", "--workers", "1"],
        [*good, "--tokenizer", HOSTILE],
        [*good, "--format", HOSTILE],
        [*good, "--strategy", HOSTILE],
        ["select", folder / FILE / "missing", "-o", folder / "out.jsonl", *budget],
        ["select", drop, "-o", folder / FOLDER, *budget],
        ["select", drop, "-o", folder / FILE, *budget],
        [*good, "--resume"],
    ]


def _ratio(root: DataRoot, folder: Path) -> Calls:
    keyed = write_jsonl(folder / "keyed.jsonl", [{HOSTILE: 1}])
    return [
        ["ratio", root["sft"].raw / FILE, root["sft"].raw / FILE],
        ["ratio", folder / FOLDER],
        ["ratio", keyed, "--text-field", "text"],
        ["ratio", keyed, "--codec", HOSTILE],
    ]


def _trace(root: DataRoot, folder: Path) -> Calls:
    ledger = root["sft"].versions.path(2) / "ledger.parquet"
    no_ledger = root["sft"].raw / FILE
    return [
        ["trace", _sample_id(root), "--data-root", root.path],
        ["trace", _sample_id(root), "--select-ledger", ledger],
        ["trace", _sample_id(root), "--select-ledger", no_ledger],
        ["trace", HOSTILE, "--data-root", root.path],
        ["trace", "abcdef", "--data-root", folder / FOLDER],
        ["trace", "abcdef", HOSTILE],
    ]


def _diff(root: DataRoot, _folder: Path) -> Calls:
    both = ["diff", "1", "2", "--data-root", root.path]
    return [both, [*both, "--list", "in"], ["diff", "1", "9", *both[3:]]]


def _export(root: DataRoot, folder: Path) -> Calls:
    rest = [folder / FOLDER, "--to", "messages", "--data-root", root.path]
    return [["export", "2", *rest], ["export", "9", *rest], ["export", "2", *rest]]


def _report(root: DataRoot, folder: Path) -> Calls:
    here = ["report", "2", "--data-root", root.path, "-o"]
    return [[*here, folder / FOLDER], ["report", "--data-root", folder / "none" / FOLDER]]


def _versions(root: DataRoot, folder: Path) -> Calls:
    return [
        ["versions", "--data-root", root.path],
        ["versions", "--data-root", folder / FOLDER],
    ]


def _status(root: DataRoot, folder: Path) -> Calls:
    return [["status", "--data-root", root.path], ["status", "--data-root", folder / FOLDER]]


def _verify(root: DataRoot, folder: Path) -> Calls:
    (root["sft"].versions.folder / FILE).mkdir(exist_ok=True)
    return [["verify", "--data-root", root.path], ["verify", "--data-root", folder / FOLDER]]


def _sync(root: DataRoot, folder: Path) -> Calls:
    shared = DataRoot(folder / FOLDER)
    store = folder / f"store{FOLDER}"
    for path in (shared["sft"].raw, store):
        path.mkdir(parents=True)
    (shared.path / "zip_pipeline.toml").write_text(f"[store]\nurl = {json.dumps(store.as_uri())}\n")
    write_jsonl(shared["sft"].raw / FILE, _records(2))
    ingest_drop(shared["sft"], FILE)
    write_state(shared["sft"], FILE)
    (shared["sft"].raw / FILE).unlink()
    here = ["sync", "--data-root", shared.path]
    return [
        here,
        [*here, "--remove", FILE],
        [*here, "--remove", HOSTILE],
        ["sync", "--data-root", root.path],
        ["sync", "--data-root", folder / "none" / FOLDER],
    ]


def _quarantine(root: DataRoot, folder: Path) -> Calls:
    drop = f"4{FILE}"
    write_jsonl(root["sft"].raw / drop, [*_records(2, 18), f"{{{HOSTILE}"])
    ingest_drop(root["sft"], drop)
    here = ["quarantine", "--data-root", root.path]
    return [
        here,
        [*here, drop],
        [*here, HOSTILE],
        [*here, "--reason", HOSTILE],
        ["quarantine", "--data-root", folder / FOLDER],
    ]


def _train_plan(root: DataRoot, folder: Path) -> Calls:
    return [
        ["train-plan", "tiny", root["sft"].versions.path(2)],
        ["train-plan", HOSTILE, root["sft"].versions.path(2)],
        ["train-plan", "tiny", folder / FOLDER],
    ]


def _compare(root: DataRoot, folder: Path) -> Calls:
    here = ["compare", "--data-root", root.path]
    return [
        ["compare", "--data-root", folder / FOLDER],
        [*here, "--strategies", HOSTILE],
        [*here, "--target", HOSTILE],
    ]


def _inspect(root: DataRoot, folder: Path) -> Calls:
    path = root["sft"].raw / FILE
    other = folder / FILE
    other.write_text(json.dumps({HOSTILE: HOSTILE, "chosen": HOSTILE}) + f"\n{HOSTILE}\n")
    return [
        ["inspect", path],
        ["inspect", other],
        ["inspect", path, "--map", f"user={HOSTILE}"],
        ["inspect", path, "--format", HOSTILE],
        ["inspect", folder / FOLDER],
    ]


CASES: dict[str, Callable[[DataRoot, Path], Calls]] = {
    "demo": _demo,
    "sample-data": _sample_data,
    "run": _run,
    "inspect": _inspect,
    "compare": _compare,
    "select": _select,
    "ratio": _ratio,
    "trace": _trace,
    "diff": _diff,
    "train-plan": _train_plan,
    "export": _export,
    "report": _report,
    "versions": _versions,
    "status": _status,
    "sync": _sync,
    "quarantine": _quarantine,
    "verify": _verify,
}


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env=_WIDE)


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process that repeats its arguments stand for the graph, on small sample pools."""
    write = run.write_sample_data

    def small(folder: Path, *, seed: int, state: str, scale: float = 1) -> list[Path]:
        return write(folder, seed=seed, state=state, scale=0.02)

    monkeypatch.setattr(run, "write_sample_data", small)
    monkeypatch.setattr(run, "_GRAPH", "zip_pipeline_tests.cli.loud_graph")


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_no_command_sends_what_controls_a_terminal(
    root: DataRoot, tmp_path: Path, command: str
) -> None:
    """Every command has a case here, and shows the hostile words of each call escaped."""
    for arguments in CASES[command](root, tmp_path):
        result = _call(*arguments)
        printed = result.stdout_bytes.decode() + result.stderr_bytes.decode()
        assert "Traceback" not in printed
        assert isinstance(result.exception, SystemExit | None), repr(result.exception)
        assert _RAW.findall(printed) == [], (arguments, printed)
        assert MARK in printed, (arguments, printed)


def test_unknown_commands_options_and_arguments_are_shown() -> None:
    """Usage errors come from Typer, before any command."""
    cases = ([HOSTILE], ["--\x1b\u202e"], ["diff", "--\x1b\u202e"], ["diff", "1", "2", HOSTILE])
    for arguments in cases:
        result = _call(*arguments)
        assert result.exit_code == 2
        assert _RAW.findall(result.stderr) == []
        assert r"\x1b" in result.stderr
        assert r"\u202e" in result.stderr


def test_listed_samples_stay_rows_and_columns(root: DataRoot) -> None:
    """Line breaks and tabs inside a source are escaped in ``diff --list``."""
    result = _call("diff", "1", "2", "--list", "in", "--data-root", root.path)
    ledgers = [
        pl.read_parquet(root["sft"].versions.path(n) / "ledger.parquet").filter(fate="picked")
        for n in (1, 2)
    ]
    came = set(ledgers[1]["sample_id"]) - set(ledgers[0]["sample_id"])
    rows = [line.split("\t") for line in result.stdout.split("\n")[:-1]]
    assert {row[0] for row in rows} == came
    assert len(rows) == len(came) >= 2
    for row in rows:
        assert row[1] == SHOWN_SOURCE
        assert re.fullmatch(re.escape(f"{SHOWN}.jsonl:") + r"\d", row[2])
        assert row[3:5] == ["never_reached", "picked"]
        assert len(row) == 6


def test_json_keeps_the_data(root: DataRoot, tmp_path: Path) -> None:
    """What ``select`` writes holds the source as it came."""
    out = tmp_path / "out.jsonl"
    _call("select", root["sft"].raw / FILE, "-o", out, "--budget-samples", "2", "--no-noise-guard")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["source"] for row in rows] == [SOURCE, SOURCE]


def test_names_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    """A byte of a file name that is no text is told in hexadecimal digits."""
    name = os.fsdecode(b"latin-\xe9.txt")
    (tmp_path / name).write_bytes(b"abc" * 9)
    assert r"latin-\udce9.txt" in _call("ratio", tmp_path / name).stdout


def _on_a_terminal(*command: str | Path) -> str:
    ours, theirs = pty.openpty()
    environment = os.environ | _WIDE | {"TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(ours)
    process.wait()
    return printed.decode()


def test_style_still_reaches_a_terminal(tmp_path: Path) -> None:
    """Tables and help are bold, and the bars of ``select`` move, around data that is escaped."""
    command = [sys.executable, "-m", "zip_pipeline.cli"]
    drop = write_jsonl(tmp_path / FILE, _records(3))
    table = _on_a_terminal(*command, "ratio", drop, drop)
    assert "\x1b[1mall together" in table
    assert SHOWN in table
    assert "\x1b[1m" in _on_a_terminal(*command, "--help")
    options = ("-o", tmp_path / "out.jsonl", "--budget-samples", "2")
    selected = _on_a_terminal(*command, "select", drop, *options)
    assert "\x1b[2K" in selected
    for printed in (table, selected):
        assert "\x1b]52" not in printed
        assert "\x1b[2J" not in printed
        assert not set("\x07\x08\x9b\x7f\u202e\u2066") & set(printed)


def test_the_graph_on_its_own_shows_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without the command line, which would do so: here the current folder is hostile."""
    from zip_pipeline.defs.headless import main

    (tmp_path / FOLDER).mkdir()
    monkeypatch.chdir(tmp_path / FOLDER)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", sys.stdout)
        patch.setattr(sys, "stderr", sys.stderr)
        assert main(["--data-root", "data", "--until", "subset"]) == 1
    printed = capsys.readouterr().err
    assert MARK in printed
    assert _RAW.findall(printed) == []


def test_a_bug_shows_its_traceback_escaped() -> None:
    """What is no error of the user is told in full, without control characters."""
    code = (
        "from zip_pipeline.cli import app\n"
        "def bug(): raise RuntimeError('\\x1b[2J got this')\n"
        "app.command('bug')(bug)\n"
        "app(['bug'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().endswith("RuntimeError: \\x1b[2J got this\n")
    assert b"\x1b" not in done.stderr
