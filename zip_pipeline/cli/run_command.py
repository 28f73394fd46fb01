"""``zip-pipeline run``: the whole graph without a user interface, and what came of it."""

import subprocess
import sys

import typer

from zip_pipeline.cli.console import interruption_hint, output, print_error
from zip_pipeline.cli.data_roots import DEFAULT_DATA_ROOT, DataRootOption, existing_root
from zip_pipeline.cli.root_summary import show_data_root
from zip_pipeline.pool.drops import is_batch_name
from zip_pipeline.samples import STAGES
from zip_pipeline.storage import DataRoot

_GRAPH = "zip_pipeline.defs.headless"


def run(data_root: DataRootOption = DEFAULT_DATA_ROOT) -> None:
    """Ingest what lies in DIR/raw/sft and DIR/raw/preference and select a new version of each.

    Only what changed is computed again; a stage whose pool and configuration are the same as
    last time keeps its version.
    """
    root = existing_root(data_root)
    _require_drops(root)
    versions_before = {stage: root.versions(stage).latest() for stage in STAGES}
    # The graph runs in a process of its own: this one never imports Dagster.
    command = [sys.executable, "-m", _GRAPH, "--data-root", str(data_root)]
    with interruption_hint("Run the command again: finished batches are kept."):
        exit_code = subprocess.run(command, check=False).returncode
    if not exit_code or any(root.batches(stage) for stage in STAGES):
        show_data_root(output(), root, versions_before)
    if exit_code:
        print_error(f"the graph ended with exit code {exit_code}; its messages stand above")
        raise typer.Exit(exit_code if exit_code > 0 else 128 - exit_code)


def _require_drops(root: DataRoot) -> None:
    folders = [root.raw(stage) for stage in STAGES if root.raw(stage).is_dir()]
    if any(is_batch_name(entry.name) for folder in folders for entry in folder.iterdir()):
        return
    places = " and ".join(str(root.raw(stage)) for stage in STAGES)
    raise ValueError(
        f"nothing to do: no drop in {places}; put files there, or make some with: "
        f"zip-pipeline sample-data {root.path}"
    )
