"""``zip-pipeline run``: the whole graph without a user interface, and what came of it."""

from typing import Annotated

import typer

from zip_pipeline.cli.console import output, print_error
from zip_pipeline.cli.data_roots import DEFAULT_DATA_ROOT, DataRootOption, existing_root
from zip_pipeline.cli.graph_process import run_graph
from zip_pipeline.cli.root_summary import show_data_root
from zip_pipeline.job_process import BLOCKED, Step
from zip_pipeline.pool.drops import is_batch_name
from zip_pipeline.samples import STAGES
from zip_pipeline.storage import DataRoot

Until = Annotated[
    Step,
    typer.Option(
        help="Last step. subset: select only. probe: ask the entropy law about the subset. law: "
        "train what it lets through, evaluate, draw the figures."
    ),
]


def run(data_root: DataRootOption = DEFAULT_DATA_ROOT, until: Until = "law") -> None:
    """Take what lies in DIR/raw/sft and DIR/raw/preference through the whole graph.

    Ingestion, a new version of each subset, the entropy law's verdict, training and evaluation.
    Only what changed is computed again. Exit code 3: the law keeps a version from being trained.
    """
    root = existing_root(data_root)
    _require_drops(root)
    versions_before = {stage: root.versions(stage).latest() for stage in STAGES}
    exit_code = run_graph(data_root, until)
    if exit_code in (0, BLOCKED) or any(root.batches(stage) for stage in STAGES):
        show_data_root(output(), root, versions_before)
    if exit_code not in (0, BLOCKED):
        print_error(f"the graph ended with exit code {exit_code}; its messages stand above")
    if exit_code:
        raise typer.Exit(exit_code)


def _require_drops(root: DataRoot) -> None:
    folders = [root.raw(stage) for stage in STAGES if root.raw(stage).is_dir()]
    if any(is_batch_name(entry.name) for folder in folders for entry in folder.iterdir()):
        return
    places = " and ".join(str(root.raw(stage)) for stage in STAGES)
    raise ValueError(
        f"nothing to do: no drop in {places}; put files there, or make some with: "
        f"zip-pipeline sample-data {root.path}"
    )
