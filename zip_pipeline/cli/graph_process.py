"""The graph in a process of its own: the command line never imports Dagster."""

import subprocess
import sys
from pathlib import Path

from zip_pipeline.cli.console import interruption_hint
from zip_pipeline.job_process import Step

_GRAPH = "zip_pipeline.defs.headless"


def run_graph(data_root: Path, until: Step = "law") -> int:
    """Run the graph over a data root once; return its exit code, 128 and up for a signal."""
    command = [sys.executable, "-m", _GRAPH, "--data-root", str(data_root), "--until", until]
    with interruption_hint("Run the command again: what is finished is kept."):
        exit_code = subprocess.run(command, check=False).returncode
    return exit_code if exit_code >= 0 else 128 - exit_code
