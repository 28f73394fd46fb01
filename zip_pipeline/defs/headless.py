"""The whole graph without a server: from new drops to models and the law's figures.

``python -m zip_pipeline.defs.headless [--data-root DIR] [--until STEP]``
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import dagster as dg

from zip_pipeline.data_root import DataRoot, remove_leftovers
from zip_pipeline.defs.automation import (
    EVALUATION_JOB,
    ingest_job_name,
    probe_job_name,
    select_job_name,
    train_job_name,
)
from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.drops import PARTITION_TAG, ingested, keys_to_archive
from zip_pipeline.defs.keys import (
    ENTROPY_LAW,
    EVALUATION,
    RISK_CHECK,
    loss_probe_key,
    model_key,
    partitions_name,
    report_key,
    zip_subset_key,
)
from zip_pipeline.defs.private import (
    DagsterAssetCheckFailedError,
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from zip_pipeline.defs.resources import default_data_root
from zip_pipeline.defs.run_launcher import LOCK_TAG
from zip_pipeline.errors import UserError, storage_error
from zip_pipeline.files import held_lock
from zip_pipeline.ingest.drops import list_drops
from zip_pipeline.process import BLOCKED, ERROR_FILE_VARIABLE, Step
from zip_pipeline.samples import STAGES, Stage
from zip_pipeline.settings import SETTINGS_FILE, training_settings
from zip_pipeline.terminal_text import show_control_characters
from zip_pipeline.workflow.models import trained_versions

CODE_LOCATION = "zip_pipeline"
"""As workspace.yaml and pyproject.toml name it."""
HISTORY_NOTE = Path(".dagster") / "data_root"


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Return the instance that ``dg dev``, started in ``folder``, shows.

    That of DAGSTER_HOME where it is set, else that of ``folder/dagster.yaml``.

    Raises:
        UserError: there is neither.
    """
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    if not (folder / "dagster.yaml").exists():
        raise UserError(
            f"{folder}: no dagster.yaml, so there is no place for the history; run this in the "
            "project's folder, or set DAGSTER_HOME to the absolute path of a folder; an empty one "
            "will do"
        )
    return dg.DagsterInstance.from_config(str(folder))


def claim_history(folder: Path, data_root: Path) -> None:
    """Note whose history ``folder/.dagster`` is; refuse to mix it with another data root's.

    Where DAGSTER_HOME is set, the history is its owner's business.

    Raises:
        UserError: it holds the history of another data root.
    """
    if os.environ.get("DAGSTER_HOME"):
        return
    note, mine = folder / HISTORY_NOTE, os.path.relpath(data_root.resolve(), folder.resolve())
    known = note.read_text(encoding="utf-8") if note.exists() else mine
    if known != mine:
        raise UserError(
            f"{note.parent}: holds the history of the data root {known}, with which that of {mine} "
            "would be mixed up in the UI. Run this in a folder of its own, to which you copy "
            "dagster.yaml, or set DAGSTER_HOME to such a folder"
        )
    note.parent.mkdir(exist_ok=True)
    note.write_text(mine, encoding="utf-8")


STEPS: tuple[Step, ...] = get_args(Step)
LOCK_FILE = ".run.lock"
INTERRUPTED = 130
_TOLD = [f"{kind.__module__}.{kind.__name__}: " for kind in (UserError, dg.Failure)]
_QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class HeadlessRun:
    """One pass over the graph: new drops, subsets, probes, models, evaluation, law and reports."""

    def __init__(self, instance: dg.DagsterInstance, data_root: Path) -> None:
        self._instance = instance
        self._root = DataRoot(data_root)
        self._repository = code_location(data_root).get_repository_def()
        self.failures: list[str] = []
        self.blocked: list[str] = []

    def ingest(self, stage: Stage) -> int:
        """Ingest each drop not ingested as it looks now; return how many drops there are."""
        folder = self._root[stage].raw
        drops = list_drops(folder)
        for name, reason in drops.unusable.items():
            self.failures.append(f"{folder}: {name!r} is not ingested: {reason}")
        known = ingested(self._instance, self._root[stage], drops.found)
        for batch in sorted(drops.found.keys() - known):
            self._instance.add_dynamic_partitions(partitions_name(stage), [batch])
            self._execute(ingest_job_name(stage), f"{stage} {batch}", {"partition_key": batch})
        for key in keys_to_archive(self._instance, self._root[stage]):
            self._instance.delete_dynamic_partition(partitions_name(stage), key)
        return len(drops.found) + len(drops.unusable)

    def select(self, stage: Stage) -> bool:
        """Select the subset of a stage and check it; return whether all is well."""
        return self._materialise(select_job_name(stage), zip_subset_key(stage))

    def probe(self, stage: Stage) -> bool:
        """Ask the law about the subset of a stage; return whether it may be trained."""
        return self._materialise(probe_job_name(stage), loss_probe_key(stage))

    def train(self, stage: Stage) -> None:
        """Train the latest version of a stage; KTO needs an SFT model to start from."""
        if stage == "preference" and not self._has_sft_model():
            print(
                "preference/model: not trained, for there is no SFT model yet; drop SFT data too, "
                f"or name a model folder as sft_model in [training] of {SETTINGS_FILE}",
                flush=True,
            )
            return
        self._materialise(train_job_name(stage), model_key(stage))

    def _has_sft_model(self) -> bool:
        try:
            given = training_settings(self._root.path).sft_model
        except UserError:  # which the training itself reports
            return True
        return bool(given or trained_versions(self._root["sft"]))

    def evaluate(self) -> None:
        """Evaluate what is trained, and draw the law's figures anew."""
        keys = {"asset_selection": [EVALUATION, ENTROPY_LAW]}
        self._execute(EVALUATION_JOB, "evaluation, entropy_law", keys)

    def report(self, stage: Stage) -> None:
        """Write the report of the latest version of a stage."""
        self._materialise(EVALUATION_JOB, report_key(stage))

    def _materialise(self, job_name: str, key: dg.AssetKey) -> bool:
        return self._execute(job_name, key.to_user_string(), {})

    def _execute(self, job_name: str, subject: str, what: dict[str, Any]) -> bool:
        """Run a job and note what went wrong; return whether nothing did."""
        with _shown_in_the_ui(self._instance, self._repository.name, job_name):
            result = self._repository.get_job(job_name).execute_in_process(
                instance=self._instance,
                run_config=_QUIET,
                raise_on_error=False,
                tags={LOCK_TAG: str(_lock(self._root.path).resolve()), "dagster/max_retries": "0"},
                **what,
            )
        errors = _step_errors(result.all_node_events)
        if any(dg.DagsterExecutionInterruptedError.__name__ in error for error in errors):
            raise KeyboardInterrupt
        failed = _failed_checks(result)
        if blocked := failed.pop(RISK_CHECK, None):
            self.blocked.append(f"{subject}: {blocked}")
            # The error that a failed blocking check raises says less than the check.
            errors = [e for e in errors if DagsterAssetCheckFailedError.__name__ not in e]
        problems = [*errors, *(f"check {name} failed: {words}" for name, words in failed.items())]
        if not result.success and not problems and not blocked:
            problems = ["failed"]
        self.failures += [f"{subject}: {problem}" for problem in problems]
        if not problems:
            print(f"{subject}: {'blocked' if blocked else 'done'}", flush=True)
        return not problems and not blocked


@contextmanager
def _shown_in_the_ui(
    instance: dg.DagsterInstance, repository_name: str, job_name: str
) -> Iterator[None]:
    """Let runs that are executed in this process stand in the timeline and on the job's page.

    The UI finds them by the code location that they come from, which Dagster notes of those alone
    that a code server executes.
    """
    location = RegisteredCodeLocationOrigin(CODE_LOCATION)
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, repository_name), job_name)
    create = partial(instance.create_run_for_job, remote_job_origin=origin)
    # Of this instance alone: execute_in_process takes no origin.
    vars(instance)["create_run_for_job"] = create
    try:
        yield
    finally:
        del vars(instance)["create_run_for_job"]


@dataclass(frozen=True)
class Outcome:
    """What a pass over the graph came to, one line each.

    ``failures``: what failed; checks of severity WARN are no failure. ``blocked``: versions that
    the entropy law keeps from being trained, with its reason.
    """

    failures: list[str]
    blocked: list[str]

    @property
    def exit_code(self) -> int:
        """1 when something failed, else BLOCKED when a version is blocked, else 0."""
        return 1 if self.failures else BLOCKED if self.blocked else 0


def run_graph(data_root: Path, working_folder: Path, *, until: Step = "law") -> Outcome:
    """Run the whole graph once over ``data_root``.

    Args:
        data_root: folder of drops, pool, state and versions.
        working_folder: holds the ``dagster.yaml`` of the instance that keeps the history.
        until: the last step: ``ingest`` takes the drops in, ``subset`` selects, ``probe`` asks
            the entropy law as well and writes the reports, ``law`` trains what it lets through,
            evaluates and draws the figures.

    Raises:
        UserError: no instance or that of another data root, or another run is at work.
    """
    with (
        open_instance(working_folder) as instance,
        held_lock(_lock(data_root)) as is_mine,
    ):
        if not is_mine:
            raise UserError(f"{data_root}: another run is at work there; wait until it ends")
        claim_history(working_folder, data_root)
        remove_leftovers(DataRoot(data_root))
        run = HeadlessRun(instance, data_root)
        if not sum([run.ingest(stage) for stage in STAGES]):
            print(f"{data_root / 'raw'}: no drops", flush=True)
        root = DataRoot(data_root)
        stages = [stage for stage in STAGES if until != "ingest" and root[stage].batches()]
        for stage in stages:
            may_train = run.select(stage) and until != "subset" and run.probe(stage)
            if may_train and until == "law":
                run.train(stage)
        if stages and until == "law":
            run.evaluate()
        for stage in stages if until != "subset" else ():
            run.report(stage)
        return Outcome(run.failures, run.blocked)


def _lock(data_root: Path) -> Path:
    return data_root / LOCK_FILE


def _step_errors(events: Iterable[dg.DagsterEvent]) -> list[str]:
    errors = [event.step_failure_data.error for event in events if event.is_step_failure]
    messages = [(error.cause or error).message.strip() for error in errors if error is not None]
    for prefix in _TOLD:
        # What a person can mend is told in its own words alone.
        messages = [message.removeprefix(prefix) for message in messages]
    return messages


def _failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        check.check_name: check.description or ""
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the graph; return the outcome's exit code (failures on standard error), 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(description="Run the whole graph once.")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1])
    parser.add_argument(
        "--failures", action="store_true", help="tell what failed last, run nothing"
    )
    given = parser.parse_args(arguments)
    show_control_characters()
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    try:
        if given.failures:
            return _shown_failures(Path.cwd())
        outcome = run_graph(given.data_root, Path.cwd(), until=given.until)
    except UserError as error:
        outcome = Outcome([str(error)], [])
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        return INTERRUPTED
    except Exception as error:
        history = os.environ.get("DAGSTER_HOME") or Path.cwd() / HISTORY_NOTE.parent
        if not (told := storage_error(error, history)):
            raise
        outcome = Outcome([str(told)], [])
    if path := os.environ.get(ERROR_FILE_VARIABLE):
        # Whoever started this tells them when it has ended.
        lines = (" ".join(failure.split()) for failure in outcome.failures)
        Path(path).write_text("\n".join(lines), encoding="utf-8")
    else:
        print(*outcome.failures, sep="\n", end="\n" * bool(outcome.failures), file=sys.stderr)
    print(*outcome.blocked, sep="\n", end="\n" * bool(outcome.blocked), file=sys.stderr)
    return outcome.exit_code


def _shown_failures(working_folder: Path) -> int:
    """Print what failed last and was not done since, one line each."""
    with open_instance(working_folder) as instance:
        for line in last_failures(instance):
            print(line)
    return 0


_NUM_RUNS = 100


def last_failures(instance: dg.DagsterInstance) -> list[str]:
    """Return when and why the last run of each kind failed, where it did, newest first.

    A kind is a job with the assets and the partition that it was for.
    """
    newest: dict[tuple[str, frozenset[dg.AssetKey], str | None], dg.RunRecord] = {}
    for record in instance.get_run_records(limit=_NUM_RUNS):
        run = record.dagster_run
        assets = frozenset(run.asset_selection or ())
        newest.setdefault((run.job_name, assets, run.tags.get(PARTITION_TAG)), record)
    failed = [
        (record, key)
        for key, record in newest.items()
        if record.dagster_run.status == dg.DagsterRunStatus.FAILURE
    ]
    return [
        f"{datetime.fromtimestamp(record.start_time or 0).astimezone():%Y-%m-%d %H:%M}, "
        f"{_kind(*key)}: {_why(instance, record.dagster_run.run_id)}"
        for record, key in failed
    ]


def _kind(job_name: str, assets: frozenset[dg.AssetKey], partition: str | None) -> str:
    names = ", ".join(sorted(key.to_user_string() for key in assets)) or job_name
    return f"{names} {partition}" if partition else names


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
    reasons = _step_errors(events) or [e.message or "" for e in events if e.is_run_failure]
    return " ".join((reasons or ["it ended without a reason"])[0].split())


if __name__ == "__main__":
    sys.exit(main())
