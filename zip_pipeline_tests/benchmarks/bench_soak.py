"""Nights on a clock that is moved on: what webserver, daemon and code location take, what grows.

The services are those of ``docker/`` as processes of this machine, with their database and what
they retain. Each night a small drop comes, the sensor asks for its ingestion, the schedule for a
version, the sensor of figures for the report, and somebody looks at the pages. The probe trains no
model. ``python -m zip_pipeline_tests.benchmarks.bench_soak [NIGHTS [FOLDER]]``: the folder keeps
all of it, with ``nights.jsonl``, a line per night.
"""

import json
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from zip_pipeline.data_root import DataRoot, version_name
from zip_pipeline.selection.config import stage_selection
from zip_pipeline.workflow.integrity import verify
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.benchmarks.machine import report
from zip_pipeline_tests.end_to_end.services import Topology, topology
from zip_pipeline_tests.processes import process_tree, usage

NIGHTS = 20
ROWS_PER_NIGHT = 20
SETTINGS = "[sft]\nbudget_samples = 40\n"
SECONDS_OF_A_NIGHT = 300
SECONDS_UNTIL_DROPS, SECONDS_UNTIL_ALL = 6, 31
"""By how much the clock is moved on until the drops are looked at, and until every sensor ticks."""
_WORDS = [f"word{n}" for n in range(2000)]
_TABLES = ("pool", "quarantine", "duplicates", "state")
_REPOSITORY = 'repositoryName: "__repository__", repositoryLocationName: "zip_pipeline"'
_UNFINISHED = """
{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, MANAGED, STARTING, STARTED, CANCELING]}) {
    ... on Runs { results { runId status jobName } } } }
"""
_NUM_RUNS = "{ runsOrError { ... on Runs { count } } }"
_TICKS = f"""
query Ticks($name: String!, $after: Float!) {{
  instigationStateOrError(instigationSelector: {{{_REPOSITORY}, name: $name}}) {{
    ... on InstigationState {{
      ticks(afterTimestamp: $after) {{ timestamp endTimestamp status error {{ message }} }} }} }} }}
"""
_RUNS = """
{ runsOrError(limit: 25) { ... on Runs { results {
    runId status jobName startTime endTime tags { key value }
    stats { ... on RunStatsSnapshot { stepsSucceeded materializations } } } } } }
"""
_ASSETS = """
{ assetNodes {
    assetKey { path } staleStatus description
    assetMaterializations(limit: 1) { timestamp metadataEntries { label description } }
    partitionStats { numMaterialized numPartitions } } }
"""
_LOGS = """
query Logs($id: ID!) { logsForRun(runId: $id) { ... on EventConnection {
    events { __typename ... on MessageEvent { message timestamp level stepKey } } } } }
"""


def rows(night: int) -> list[dict[str, str]]:
    """Return what is dropped before a night."""
    draw = random.Random(night)
    return [
        {
            "instruction": f"{night} {n} {' '.join(draw.choices(_WORDS, k=10))}?",
            "output": " ".join(draw.choices(_WORDS, k=60)),
            "source": f"source {n % 3}",
        }
        for n in range(ROWS_PER_NIGHT)
    ]


class Nights:
    """Services with what they took so far."""

    def __init__(self, services: Topology, root: DataRoot) -> None:
        self._services, self._root = services, root
        self._page = services.page()
        self._processes = (services.daemon, services.webserver, services.code_location)
        self._before = self._usages()
        self._of_runs = 0.0
        self._moves: list[tuple[float, float]] = []

    def pass_one(self, night: int) -> dict[str, float]:
        """Drop a batch, wait until it is ingested, selected and told of; return what it took."""
        began, evening = time.monotonic(), self._services.clock.now().timestamp()
        self._moves.clear()
        text = "".join(json.dumps(row) + "\n" for row in rows(night))
        (self._root["sft"].raw / f"{night:04d}.jsonl").write_text(text)
        self._go_on(SECONDS_UNTIL_DROPS, lambda: len(self._root["sft"].batches()) == night)
        self._services.clock.move_to_night()
        told = self._root["sft"].reports / f"{version_name(night)}.html"
        self._go_on(SECONDS_UNTIL_ALL, told.exists)
        runs = self._look_at_pages()
        found = {"night": night, "num_runs": runs, "seconds": round(time.monotonic() - began, 1)}
        ticks = self._ticks(evening)
        return found | ticks | self._taken() | self._disk() | {"load": os.getloadavg()[0]}

    def _go_on(self, seconds: float, is_done: Callable[[], bool]) -> None:
        """Move the clock on while no run is at work, until all is done."""
        deadline = time.monotonic() + SECONDS_OF_A_NIGHT
        while True:
            unfinished = self._page.query(_UNFINISHED)["runsOrError"]["results"]
            if not unfinished and is_done():
                return
            assert time.monotonic() < deadline, self._services.daemon.log()
            if all(run["status"] == "QUEUED" for run in unfinished):
                self._move(SECONDS_UNTIL_DROPS if unfinished else seconds)
            time.sleep(0.25 if unfinished else 1)

    def _move(self, seconds: float) -> None:
        self._moves.append((self._services.clock.now().timestamp(), seconds))
        self._services.clock.move(seconds)

    def _look_at_pages(self) -> int:
        """Ask what the pages of runs, assets and a run ask; return how many runs there are."""
        results = self._page.query(_RUNS)["runsOrError"]["results"]
        for run in results[:3]:
            assert run["status"] == "SUCCESS", run
            self._page.query(_LOGS, id=run["runId"])
        self._page.query(_ASSETS)
        for name in ("raw_pool", "zip_subset", "report"):
            self._page.materializations("sft", name)
        return int(self._page.query(_NUM_RUNS)["runsOrError"]["count"])

    def _ticks(self, since: float) -> dict[str, float]:
        """Return how long the ticks of some sensors took, in milliseconds."""
        found: dict[str, float] = {}
        for name in ("sft_drops", "alerts", "entropy_law_figures"):
            state = self._page.query(_TICKS, name=name, after=since)["instigationStateOrError"]
            ticks = [t for t in state["ticks"] if t["endTimestamp"] is not None]
            assert not [t for t in ticks if t["error"]], ticks
            found[f"{name}_num_ticks"] = len(ticks)
            lasted = [self._lasted(t["timestamp"], t["endTimestamp"]) for t in ticks]
            found[f"{name}_tick_ms"] = round(1000 * median(lasted), 1)
        return found

    def _lasted(self, begin: float, end: float) -> float:
        """Return how long something took while the clock may have been moved on."""
        return end - begin - sum(by for at, by in self._moves if begin <= at < end)

    def _usages(self) -> dict[str, Any]:
        return {service.name: usage(service.process.pid) for service in self._processes}

    def _taken(self) -> dict[str, float]:
        before, self._before = self._before, self._usages()
        found = {}
        for name, now in self._before.items():
            found[f"{name}_memory_mb"] = now.memory_mb
            found[f"{name}_cpu_seconds"] = round(now.cpu_seconds - before[name].cpu_seconds, 2)
        runs = sum(
            of_runs.cpu_seconds + of_runs.ended_cpu_seconds
            for of_runs in map(usage, process_tree(self._services.code_location.process.pid)[1:])
        )
        found["runs_cpu_seconds"] = round(runs - self._of_runs, 2)
        self._of_runs = runs
        return found

    def _disk(self) -> dict[str, float]:
        sql = "--command=select pg_database_size('dagster')"
        login = ("--username=dagster", "--tuples-only", "--no-align", "dagster")
        size = int(self._services.database.run("psql", *login, sql))
        folder = self._root.path.parent
        return {
            "database_mb": round(size / 1e6, 2),
            "data_mb": round(disk_bytes(self._root.path) / 1e6, 2),
            "shared_mb": round(disk_bytes(folder / "dagster" / "shared") / 1e6, 2),
        }


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def selected_again(root: DataRoot, folder: Path, numbers: list[int]) -> Iterator[bool]:
    """Yield for some versions whether their pool of that night gives the same picks."""
    for number in numbers:
        manifest = root["sft"].versions.manifest(number)
        then = DataRoot(folder / f"again-{number}")
        # The set is drawn once, from the first pool that is large enough.
        if manifest["held_out"]:
            shutil.copytree(root.path / "held_out", then.path / "held_out")
        for kind in _TABLES:
            (then.path / kind / "sft").mkdir(parents=True)
            for batch in manifest["inputs"]:
                table = f"{kind}/sft/{batch}.parquet"
                (then.path / table).hardlink_to(root.path / table)
        config = stage_selection(root.path, "sft")
        again = select_version(then["sft"], config, lambda _: None)
        picks = [
            r["sft"].versions.subset(n).select("sample_id").collect()
            for r, n in ((root, number), (then, again))
        ]
        yield picks[0].equals(picks[1])
        shutil.rmtree(then.path)


def compared(nights: list[dict[str, float]]) -> dict[str, object]:
    """Return the medians of the first and of the last fifth of the nights, and how they compare."""
    # The first night loads what stays loaded.
    fifth = max(len(nights) // 5, 1)
    found = {}
    for name in nights[-1]:
        first, last = (
            median(night[name] for night in part)
            for part in (nights[1 : 1 + fifth], nights[-fifth:])
        )
        found[name] = [first, last, round(last / first, 3) if first else None]
    return found


def main(nights: int, folder: Path) -> None:
    """Pass the nights, then report how the last of them compare with the first."""
    root, passed = DataRoot(folder / "data"), []
    root["sft"].raw.mkdir(parents=True)
    (root.path / "zip_pipeline.toml").write_text(SETTINGS)
    definitions = "zip_pipeline_tests.benchmarks.soak_definitions"
    try:
        with (
            topology(folder, secrets.token_hex(8), definitions=definitions) as services,
            (folder / "nights.jsonl").open("w", buffering=1) as figures,
        ):
            of_services = Nights(services, root)
            for night in range(1, nights + 1):
                passed.append(of_services.pass_one(night))
                print(json.dumps(passed[-1]), file=figures)
    finally:
        if len(passed) > 1:
            versions = root["sft"].versions.numbers()
            began = time.monotonic()
            again = [*selected_again(root, folder, versions)]
            report(
                "soak",
                {
                    "num_nights": len(passed),
                    "versions_are_gapless": versions == [*range(1, len(passed) + 1)],
                    "num_versions": len(versions),
                    "num_selected_again_alike": sum(again),
                    "selected_again_seconds": round(time.monotonic() - began),
                    "num_damages": len(verify(root).damages),
                    "first_last_ratio": compared(passed),
                },
            )


if __name__ == "__main__":
    given = sys.argv[1:]
    # What is measured so far is told, and the services are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(given[1]) if given[1:] else Path(temporary)
        main(int(given[0]) if given else NIGHTS, place.resolve())
