"""A signal in one file, and a strategy that asks for it: run by everything that selects."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from pydantic import Field

import zip_pipeline
from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.samples import Stage, contents_text
from zip_pipeline.selection.candidates import Measured
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.selection.rounds import ScoreStrategy
from zip_pipeline.selection.strategies import strategies
from zip_pipeline.settings import Settings
from zip_pipeline.signals import Measure, Signal, Tools, signals
from zip_pipeline.workflow.comparison import compare_subset
from zip_pipeline.workflow.versions import current_version, read_version, select_version
from zip_pipeline_tests.defs.graph import SMALL, Graph, alpaca_rows, metadata_of
from zip_pipeline_tests.defs.trained_roots import ingested
from zip_pipeline_tests.test_plugins_strategy import with_this_package
from zip_pipeline_tests.workflow.comparisons import pool as comparison_pool


class DigitsSettings(Settings):
    """Which digit is counted."""

    digit: int = Field(default=7, ge=0, le=9, description="The digit.")


class Digits(Signal):
    """How often a digit stands in a sample."""

    name = "digits"
    description = "how often a digit stands in the sample"
    settings = DigitsSettings
    columns = pl.Schema({"num": pl.Int64})
    block = 16
    num_measured = 0
    stop_after = 10**9

    def identity(self, settings: DigitsSettings, tools: Tools) -> str:
        """Return the digit."""
        return f"digit {settings.digit}"

    def cost(self, example: pl.DataFrame, num_samples: int, settings: DigitsSettings) -> str:
        """Return a cost."""
        return "no time at all"

    @contextmanager
    def open(self, settings: DigitsSettings, stage: Stage, tools: Tools) -> Iterator[Measure]:
        """Give what counts, and stops like a killed process where it is told to."""

        def measure(samples: pl.DataFrame) -> pl.DataFrame:
            if Digits.num_measured + samples.height > Digits.stop_after:
                raise KeyboardInterrupt
            Digits.num_measured += samples.height
            texts = samples.select(contents_text(stage))[:, 0]
            return pl.DataFrame({"num": texts.str.count_matches(str(settings.digit))})

        yield measure


class ManyDigits(ScoreStrategy):
    """The samples with most of the digit first."""

    name = "many_digits"
    description = "the samples with most of a digit first"
    parameters = ("signals",)
    signals = ("digits",)

    def scores(self, pool: Measured, config: SelectionConfig, workers: int) -> NDArray[np.float64]:
        """Return how often the digit stands in each sample."""
        return pool.signal("digits")["num"].cast(pl.Float64).to_numpy()


def register() -> None:
    """Make both known."""
    signals.register(Digits())
    strategies.register(ManyDigits())


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    register()
    Digits.num_measured, Digits.stop_after = 0, 10**9
    yield
    signals.unregister("digits")
    strategies.unregister("many_digits")


def config(**options: object) -> SelectionConfig:
    """Return a configuration of the toy strategy."""
    return SelectionConfig(strategy="many_digits", budget_samples=3, mixture="none", **options)


def digits_of(table: pl.DataFrame, digit: int = 7) -> list[int]:
    """Return how often the digit stands in each sample."""
    texts = table.select(contents_text("sft"))[:, 0]
    return texts.str.count_matches(str(digit)).to_list()


def test_a_new_batch_is_measured_alone(tmp_path: Path) -> None:
    """What is known stays known; the log tells what is to be measured, and what it takes."""
    root, log = DataRoot(tmp_path), []
    ingested(root, "a.jsonl", 40)
    version = read_version(root["sft"], select_version(root["sft"], config(), log.append))
    assert Digits.num_measured == 40
    assert [line for line in log if "Signal" in line] == [
        "Signal digits: 40 samples to measure, no time at all"
    ]
    assert version.manifest["signals"] == {"digits": "digit 7"}
    assert version.manifest["config"]["signals"] == {"digits": {}}
    everything = digits_of(pl.read_parquet(root["sft"].samples("a.jsonl")))
    assert digits_of(version.subset) == sorted(everything, reverse=True)[:3]
    assert version.ledger["score"].max() == max(everything)
    ingested(root, "b.jsonl", 20, first=100)
    select_version(root["sft"], config(), print)
    assert Digits.num_measured == 60
    select_version(root["sft"], config(), print)
    assert Digits.num_measured == 60


def test_other_settings_measure_anew(tmp_path: Path) -> None:
    """The version before is current for its own settings alone."""
    root, log = DataRoot(tmp_path), []
    ingested(root, "a.jsonl", 40)
    number = select_version(root["sft"], config(), print)
    other = config(signals={"digits": {"digit": 3}})
    assert current_version(root["sft"], config()) == number
    assert current_version(root["sft"], other) is None
    version = read_version(root["sft"], select_version(root["sft"], other, log.append))
    assert Digits.num_measured == 80
    assert version.manifest["signals"] == {"digits": "digit 3"}
    assert (
        "Signal digits: was measured by digit 7, now by digit 3; what was measured by another "
        "counts no more"
    ) in log
    assert current_version(root["sft"], other) == version.number


def test_a_killed_run_loses_one_block(tmp_path: Path) -> None:
    """Blocks of 16 that are done are not measured again."""
    root = DataRoot(tmp_path)
    ingested(root, "a.jsonl", 40)
    Digits.stop_after = 32
    with pytest.raises(KeyboardInterrupt):
        select_version(root["sft"], config(), print)
    assert Digits.num_measured == 32
    Digits.stop_after = 10**9
    version = read_version(root["sft"], select_version(root["sft"], config(), print))
    assert Digits.num_measured == 40
    everything = digits_of(pl.read_parquet(root["sft"].samples("a.jsonl")))
    assert digits_of(version.subset) == sorted(everything, reverse=True)[:3]
    assert not list((tmp_path / "signals").rglob("*.blocks"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"letters": {}}, "signal: got 'letters'; allowed are "),
        ({"digits": {"digit": 12}}, "signals: digits: digit: got 12; allowed are whole numbers, 0"),
        ({"digits": {"number": 1}}, "signals: digits: number: unknown; allowed are digit"),
    ],
)
def test_wrong_settings_are_refused(given: dict, message: str) -> None:
    """Before anything is measured, with what is allowed."""
    with pytest.raises(UserError, match=message):
        config(signals=given)


def test_plain_texts_have_no_signals() -> None:
    """The message says what to select from instead."""
    with pytest.raises(UserError, match="many_digits needs the signal digits, which plain texts"):
        zip_pipeline.select_texts(["7", "8"], strategy="many_digits", budget_samples=1)


def test_the_interface_and_the_comparison_run_it(tmp_path: Path) -> None:
    """Both pick the samples with most of the digit."""
    records = alpaca_rows(40)
    chosen = zip_pipeline.select(records, strategy="many_digits", budget_samples=3, mixture="none")
    assert min(digits_of(chosen.subset)) >= 2
    root = comparison_pool(tmp_path / "data")
    manifest = compare_subset(root, "many_digits+none", 0, {"budget_tokens": 1_000})
    assert manifest["signals"] == {"digits": "digit 7"}
    measured = Digits.num_measured
    compare_subset(root, "many_digits+none", 1, {"budget_tokens": 1_000})
    assert Digits.num_measured == measured


def test_the_example_of_the_guide_runs() -> None:
    """The code of CONTRIBUTING.md as it stands: a signal, a strategy, and a selection by both."""
    guide = Path(zip_pipeline.__file__).parents[1] / "CONTRIBUTING.md"
    parts = re.findall(r"```python[^\n]*\n(.*?)```", guide.read_text(encoding="utf-8"), re.S)
    names: dict[str, Any] = {}
    try:
        for part in parts:
            exec(compile(part, guide.name, "exec"), names)
        selection, records = names["selection"], names["records"]
        assert selection.subset["source_row"].to_list() == [9, 8]
        words = [selection.why(sample_id) for sample_id in selection.subset["sample_id"]]
        assert words[1] == "picked as number 2: its user asks 7 questions"
        other = zip_pipeline.select(
            records, strategy="many_questions", budget_samples=2, signals={"asking": {"mark": "!"}}
        )
        assert other.manifest["signals"] == {"asking": "questions that end with '!'"}
        assert other.ledger["score"].to_list() == [0.0] * len(records)
    finally:
        signals.unregister("asking")
        strategies.unregister("many_questions")


@pytest.mark.slow
def test_the_command_line_takes_its_settings(tmp_path: Path) -> None:
    """--signal sets one; what is wrong is named as it was typed."""
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(40))
    (tmp_path / "in.jsonl").write_text(rows)
    program = (
        f"from {__name__} import register; register(); from zip_pipeline.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "select", "in.jsonl", "-o", str(tmp_path / "o.jsonl")]
    command += ["--strategy", "many_digits", "--budget-samples", "3", "--mixture", "none"]

    def run(*options: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=with_this_package(),
            check=False,
        )

    done = run("--signal", "digits.digit=3")
    assert done.returncode == 0, done.stderr
    picked = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert min(json.dumps(row).count("3") for row in picked) >= 2
    assert "--signal: got 'digits=3'; allowed is SIGNAL.SETTING=VALUE" in run(
        "--signal", "digits=3"
    ).stderr.replace("\n", " ")


def test_the_graph_runs_it(tmp_path: Path) -> None:
    """zip_pipeline.toml sets it up: a drop is measured with its ingestion, not by the selection."""
    (tmp_path / "zip_pipeline.toml").write_text("[signals.digits]\ndigit = 3\n")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance, tmp_path)
        graph.drop("sft", "a.jsonl", alpaca_rows(40))
        ingestion = graph.ingest("sft", "a.jsonl")
        measured = metadata_of(ingestion, "sft", "signals")
        assert measured["signals"] == "digits"
        assert measured["digits_measured_by"] == "digit 3"
        assert measured["digits_num_unknown"] == 0
        assert Digits.num_measured == 40
        result = graph.select("sft", {**SMALL, "strategy": "many_digits", "budget_samples": 2})
        assert metadata_of(result, "sft", "zip_subset")["strategy"] == "many_digits"
    assert Digits.num_measured == 40
    assert read_version(graph.root["sft"], 1).manifest["signals"] == {"digits": "digit 3"}
