"""Runs modules one after another in one process, so that what they import is imported once.

Half of the time of a small training goes into importing torch, transformers and TRL (*measured*:
13 of 27 seconds), and a run of a comparison takes three processes.
"""

import argparse
import json
import runpy
import sys
from pathlib import Path

from zip_pipeline.process import end_with_parent, reporter

MODULE = "zip_pipeline.training.in_turn"


def main(arguments: list[str] | None = None) -> int:
    """Run the steps of a file; return the exit code of the first that fails, or 0.

    Args:
        arguments: of the command line: ``--config FILE`` with ``steps``, in each a ``module`` and
            its ``jobs``, files that are given to it as ``python -m MODULE --config JOB…``.
    """
    # Asked for here, not between fork and exec: there a process whose parent has threads can hang.
    end_with_parent()
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("--config", type=Path, required=True, help="the steps as JSON")
    steps = json.loads(parser.parse_args(arguments).config.read_text(encoding="utf-8"))["steps"]
    # One report for all: Dagster takes no second one from a process.
    with reporter():
        return next(filter(None, (_exit_code(step["module"], step["jobs"]) for step in steps)), 0)


def _exit_code(module: str, jobs: list[str]) -> int:
    before = sys.argv
    sys.argv = [module, "--config", *jobs]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    return 0


if __name__ == "__main__":
    sys.exit(main())
