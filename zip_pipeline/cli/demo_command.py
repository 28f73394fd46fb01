"""``zip-pipeline demo``: a sample pool that grows night by night, until a bad refresh comes."""

import json
from typing import Annotated, Any

import typer

from zip_pipeline.cli.console import output, print_error, styled
from zip_pipeline.cli.data_roots import DEFAULT_DATA_ROOT, DataRootOption
from zip_pipeline.cli.graph_process import run_graph
from zip_pipeline.cli.root_summary import show_data_root
from zip_pipeline.job_process import BLOCKED, Step
from zip_pipeline.sample_data import STATES, write_sample_data
from zip_pipeline.samples import STAGES
from zip_pipeline.storage import DataRoot, write_json

DIARY = "demo.json"
_SELECTION = """\
# One budget for all states of the demonstration, about nine tenths of the first one.
[sft]
budget_tokens = 130_000

[preference]
budget_tokens = 60_000
"""
_TRAINING = """\
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
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the sample pool.")]
Until = Annotated[Step, typer.Option(help="Last step of every night; see `zip-pipeline run`.")]


def demo(
    data_root: DataRootOption = DEFAULT_DATA_ROOT, seed: Seed = 0, until: Until = "law"
) -> None:
    """Walk a sample pool through five states, as five versions at one token budget.

    x1 to x4 add a drop each; x5 replaces two of them by a broken export. Each state goes through
    the whole graph. A demonstration that was stopped goes on where it stopped.
    """
    root = DataRoot(data_root)
    diary = _diary(root, seed)
    versions_before = {stage: root.versions(stage).latest() for stage in STAGES}
    if diary["is_finished"]:
        output().print("The demonstration is finished: its drops go through the graph once more.")
    root.path.mkdir(parents=True, exist_ok=True)
    for name, text in (("selection.toml", _SELECTION), ("training.toml", _TRAINING)):
        if not (root.path / name).exists():
            (root.path / name).write_text(text, encoding="utf-8")
    for state in STATES[STATES.index(diary["state"]) :]:
        write_json(root.path / DIARY, diary | {"state": state})
        if not diary["is_finished"]:
            output().rule(styled((state, "bold"), f": {_NEWS[state]}"), align="left")
        write_sample_data(root.path, seed=seed, state=state)
        exit_code = run_graph(root.path, until)
        if exit_code not in (0, BLOCKED):
            print_error(f"state {state} ended with exit code {exit_code}; see above")
            raise typer.Exit(exit_code)
    write_json(root.path / DIARY, diary | {"state": STATES[-1], "is_finished": True})
    show_data_root(output(), root, versions_before)


def _diary(root: DataRoot, seed: int) -> dict[str, Any]:
    """Return the seed and the state to go on with.

    Raises:
        ValueError: the folder holds drops of somebody else, or a demonstration of another seed.
    """
    path = root.path / DIARY
    if path.exists():
        diary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if diary["seed"] != seed:
            raise ValueError(
                f"{path}: a demonstration with seed {diary['seed']} began here; got --seed "
                f"{seed}. Give that seed, or another folder with --data-root"
            )
        return diary
    drops = [p for stage in STAGES for p in root.raw(stage).glob("*") if root.raw(stage).is_dir()]
    if drops:
        raise ValueError(
            f"{drops[0].parent}: holds drops already, such as {drops[0].name!r}; the demonstration "
            "wants a folder of its own. Name one with --data-root, or take the drops through the "
            f"graph with: zip-pipeline run --data-root {root.path}"
        )
    return {"seed": seed, "state": STATES[0], "is_finished": False}
