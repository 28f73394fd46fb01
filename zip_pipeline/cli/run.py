"""``zip-pipeline run``: the whole graph without a user interface, and what came of it."""

import codecs
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NoReturn

import typer

from zip_pipeline.cli.console import (
    DEFAULT_DATA_ROOT,
    DataRootOption,
    existing_root,
    interruption_hint,
    new_table,
    output,
    print_error,
    print_next,
    print_note,
    styled,
    words_of_bytes,
)
from zip_pipeline.cli.summary import root_option, show_data_root
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError, require
from zip_pipeline.files import read_json, write_json
from zip_pipeline.ingest.drops import is_batch_name
from zip_pipeline.process import BLOCKED, ERROR_FILE_VARIABLE, Step
from zip_pipeline.sample_data import STATES, write_sample_data
from zip_pipeline.samples import STAGES
from zip_pipeline.settings import SETTINGS_FILE
from zip_pipeline.store import local_folder
from zip_pipeline.workflow.sharing import share, store_settings

_GRAPH = "zip_pipeline.defs.headless"
_SECONDS_TO_END = 0.25
_SECONDS_BETWEEN_LOOKS = 0.5
_CHUNK_BYTES = 65536


def run_graph(data_root: Path, until: Step = "law") -> tuple[int, list[str]]:
    """Run the graph over a data root once; return its exit code, 128 and up for a signal, and why.

    What the process and those that it starts print goes through this process, which shows
    control characters. Why it failed is told apart, where it knows.

    Raises:
        UserError: Dagster is not installed, or what trains where a model is to be probed.
    """
    require("dagster", "zip-pipeline run")
    if until in ("probe", "law"):
        require("torch", f"zip-pipeline run --until {until}")
    command = [sys.executable, "-m", _GRAPH, "--data-root", str(data_root), "--until", until]
    pipe = subprocess.PIPE
    with (
        TemporaryDirectory() as folder,
        interruption_hint("Run the command again: what is finished is kept."),
        subprocess.Popen(
            command,
            stdout=pipe,
            stderr=pipe,
            env=os.environ | {ERROR_FILE_VARIABLE: str(Path(folder) / "error")},
        ) as process,
    ):
        try:
            _pass_on(process)
        except KeyboardInterrupt:
            # It reaches the process too, which has a moment to end by itself.
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_END)
            process.kill()
            _pass_on(process)
            raise
        except OSError:
            # Nobody reads any more.
            process.kill()
            raise
        error = Path(folder) / "error"
        reasons = error.read_text(encoding="utf-8").splitlines() if error.exists() else []
    code = process.returncode
    return code if code >= 0 else 128 - code, reasons


def _pass_on(process: "subprocess.Popen[bytes]") -> None:
    """Print what a process prints as it comes, until it has ended and what it said is read."""
    with selectors.DefaultSelector() as pipes:
        for pipe, stream in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            assert pipe is not None
            # Bytes that are no UTF-8 are half surrogate pairs in the text.
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            pipes.register(pipe, selectors.EVENT_READ, (stream, decoder))
        # A process that outlives the graph may hold a pipe open.
        while pipes.get_map():
            has_ended = process.poll() is not None
            ready = pipes.select(0 if has_ended else _SECONDS_BETWEEN_LOOKS)
            if has_ended and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK_BYTES)
                stream, decoder = key.data
                stream.write(decoder.decode(chunk, final=not chunk))
                stream.flush()
                if not chunk:
                    pipes.unregister(key.fileobj)


Until = Annotated[
    Step,
    typer.Option(
        help="Last step. ingest: take the drops in. subset: select as well. probe: ask the entropy "
        "law about the subset. law: train what it lets through, evaluate, draw the figures."
    ),
]


def run(data_root: DataRootOption = DEFAULT_DATA_ROOT, until: Until = "law") -> None:
    """Take what lies in DIR/raw/sft and DIR/raw/preference through the whole graph.

    Ingestion, a new version of each subset, the entropy law's verdict, training and evaluation.
    Only what changed is computed again. Exit code 3: the law keeps a version from being trained.
    """
    root = existing_root(data_root, is_shared=False)
    # The graph stops what rests on a batch that both sides changed.
    share(root, print_note, rests_on=None)
    is_fed = store_settings(root).url and any(root[stage].batches() for stage in STAGES)
    folders = [root[stage].raw for stage in STAGES]
    entries = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    if not is_fed and not any(is_batch_name(entry.name) for entry in entries):
        raise UserError(
            f"nothing to do: no drop in {' and '.join(map(str, folders))}; put files there, or "
            f"make some with: zip-pipeline sample-data {root.path}"
        )
    versions_before = {stage: root[stage].versions.latest() for stage in STAGES}
    exit_code, reasons = run_graph(root.path, until)
    if exit_code not in (0, BLOCKED):
        _fail(exit_code, reasons)
    show_data_root(output(), root, versions_before)
    if exit_code:
        raise typer.Exit(exit_code)


def _fail(exit_code: int, reasons: Sequence[str], what: str = "the graph") -> NoReturn:
    """End with the reasons, one line each."""
    for reason in reasons or [f"{what} ended with exit code {exit_code}; its messages stand above"]:
        print_error(reason)
    raise typer.Exit(exit_code)


DIARY = "demo.json"
_REMEDY = "restore it from a backup, or give another folder with --data-root"
_SETTINGS = """\
# The paper's strategy, and one budget for all states, about nine tenths of the first one.
[sft]
strategy = "zip"
budget_tokens = 122_000

[preference]
strategy = "zip"
budget_tokens = 73_000

# The sample sources are small: hold out more of each than the default two per cent.
[held_out]
share = 0.05
min_source_samples = 30
"""
_NEWS = {
    "x1": "worksheets, and rated answers",
    "x2": "conversations come in",
    "x3": "assistant logs come in, and dialogues in pairs",
    "x4": "a quiz comes in",
    "x5": "a broken re-export replaces worksheets and assistant logs",
}
DemoSeed = Annotated[int, typer.Option(metavar="N", help="Seed of the sample pool.")]
DemoUntil = Annotated[Step, typer.Option(help="Last step of every night; see `zip-pipeline run`.")]


def demo(
    data_root: DataRootOption = DEFAULT_DATA_ROOT, seed: DemoSeed = 0, until: DemoUntil = "law"
) -> None:
    """Walk a sample pool through five states, as five versions at one token budget.

    x1 to x4 add a drop each; x5 replaces two of them by a broken export. Each state goes through
    the whole graph. A demonstration that was stopped goes on where it stopped.
    """
    root = DataRoot(local_folder(data_root))
    diary = _diary(root, seed)
    versions_before = {stage: root[stage].versions.latest() for stage in STAGES}
    if diary.get("is_finished"):
        output().print("The demonstration is finished: its drops go through the graph once more.")
    root.path.mkdir(parents=True, exist_ok=True)
    settings = root.path / SETTINGS_FILE
    if not (settings.exists() or (root.path / DIARY).exists()):
        settings.write_text(_SETTINGS, encoding="utf-8")
    for state in STATES[STATES.index(diary["state"]) :]:
        write_json(root.path / DIARY, diary | {"state": state})
        if not diary.get("is_finished"):
            output().rule(styled((state, "bold"), f": {_NEWS[state]}"), align="left")
        write_sample_data(root.path, seed=seed, state=state)
        exit_code, reasons = run_graph(root.path, until)
        if exit_code not in (0, BLOCKED):
            _fail(exit_code, [f"state {state}: {reason}" for reason in reasons], f"state {state}")
    write_json(root.path / DIARY, diary | {"state": STATES[-1], "is_finished": True})
    show_data_root(output(), root, versions_before)


def _diary(root: DataRoot, seed: int) -> dict[str, Any]:
    """Return the seed and the state to go on with.

    Raises:
        UserError: the folder holds drops of somebody else, or a demonstration of another seed.
    """
    path = root.path / DIARY
    if path.exists():
        diary = read_json(path, _REMEDY)
        if not isinstance(diary.get("seed"), int) or diary.get("state") not in STATES:
            raise UserError(f"{path}: does not tell seed and state; {_REMEDY}")
        if diary["seed"] != seed:
            raise UserError(
                f"{path}: a demonstration with seed {diary['seed']} began here; got --seed "
                f"{seed}. Give that seed, or another folder with --data-root"
            )
        return diary
    drops = [p for stage in STAGES for p in root[stage].raw.glob("*") if root[stage].raw.is_dir()]
    if drops:
        raise UserError(
            f"{drops[0].parent}: holds drops already, such as {drops[0].name!r}; the demonstration "
            "wants a folder of its own. Name one with --data-root, or take the drops through the "
            f"graph with: zip-pipeline run --data-root {root.path}"
        )
    return {"seed": seed, "state": STATES[0], "is_finished": False}


Folder = Annotated[
    Path,
    typer.Argument(
        metavar="DIR", help="Data root to fill: drops go to DIR/raw/sft and DIR/raw/preference."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")]
State = Annotated[
    Literal["x1", "x2", "x3", "x4", "x5"],
    typer.Option(
        help="State of the pool: x1 to x4 add one SFT drop each, x5 replaces two of them by a "
        "broken re-export."
    ),
]
Scale = Annotated[
    float,
    typer.Option(metavar="X", help="Factor on the rows: 1 gives about 4,100 SFT rows in x4."),
]


def sample_data(folder: Folder, seed: Seed = 0, state: State = "x4", scale: Scale = 1.0) -> None:
    """Write a small, lifelike pool into the drop folders of DIR; files of your own stay."""
    files = write_sample_data(folder, seed=seed, state=state, scale=scale)
    table = new_table("drop", "size")
    for path in files:
        table.add_row(str(path), words_of_bytes(path.stat().st_size))
    output().print(table)
    command = f"zip-pipeline run{root_option(DataRoot(folder))}"
    print_next(output(), {command: "ingest, select, ask the law, train and evaluate"})
