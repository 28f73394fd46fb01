"""The loss probe of a version, the law's verdict on it, and who may train after it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.defs import law
from zip_pipeline.defs.automation import RESELECTION, TRAINING
from zip_pipeline.defs.keys import RISK_CHECK, loss_probe_key, model_key
from zip_pipeline.defs.law import loss_probe_asset, model_asset
from zip_pipeline.entropy_law.table import read_versions, upsert_version
from zip_pipeline.ingest.ingest import ingest_drop
from zip_pipeline.pool.batches import write_state
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.verdicts import law_series
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.defs.graph import (
    QUIET,
    SMALL,
    Graph,
    alpaca_rows,
    checks_of,
    error_of,
    metadata_of,
)
from zip_pipeline_tests.defs.test_alerts import told
from zip_pipeline_tests.defs.trained_roots import FakeProbe

SERIES = law_series({"series": "series of tiny"}, {"budget": {"unit": "samples", "value": 30}})
ROUND: dict[str, Any] = {"k1": 20, "k2": 6, "k3": 3}
EARLIER = ((1.01, 1.02), (1.0, 1.0), (1.02, 0.99), (0.99, 1.01))
"""R and L of four versions that hardly differ."""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeProbe:
    """Put a fake in the place of the probe's process."""
    found = FakeProbe()
    monkeypatch.setattr(law, "run_modules", found)
    return found


def run(graph: Graph, job: str, *keys: dg.AssetKey, **config: Any) -> dg.ExecuteInProcessResult:
    """Materialise assets, all with the same launchpad values."""
    ops = {key.to_python_identifier(): {"config": config} for key in keys}
    return graph.repository.get_job(job).execute_in_process(
        instance=graph.instance,
        run_config=QUIET | {"ops": ops},
        raise_on_error=False,
        asset_selection=list(keys),
    )


def probe(graph: Graph, **config: Any) -> dg.ExecuteInProcessResult:
    """Materialise sft/loss_probe."""
    return run(graph, RESELECTION, loss_probe_key("sft"), **config)


@pytest.fixture(scope="module")
def measured_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with five versions of sft, of which the first four are measured."""
    root = DataRoot(tmp_path_factory.mktemp("measured"))
    root["sft"].raw.mkdir(parents=True)
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(40))
    (root["sft"].raw / "a.jsonl").write_text(rows)
    ingest_drop(root["sft"], "a.jsonl")
    write_state(root["sft"], "a.jsonl")
    for number, (r, loss) in enumerate(EARLIER, start=1):
        select_version(root["sft"], SelectionConfig(budget_samples=number, **ROUND), print)
        row = {"stage": "sft", "version": number, "R": r, "L": loss, "verdict": "no_change"}
        upsert_version(root, row | {"series": SERIES})
    select_version(root["sft"], SelectionConfig(budget_samples=30, **ROUND), print)
    return root.path


@pytest.fixture
def fifth(graph: Graph, fake: FakeProbe, measured_root: Path) -> Graph:
    """Return a graph at its fifth version of sft, of which the first four have been measured."""
    shutil.copytree(measured_root, graph.path, dirs_exist_ok=True)
    return graph


def row_of(graph: Graph, version: int) -> dict[str, Any]:
    """Return what the table holds of a version of sft."""
    (row,) = [r for r in read_versions(graph.root).to_dicts() if r["version"] == version]
    return row


@pytest.mark.usefixtures("real_figures")
def test_first_version_is_measured_and_passes(graph: Graph, fake: FakeProbe) -> None:
    """R, L, Q and the series go into the table; with nothing to compare the check passes."""
    graph.drop("sft", "a.jsonl", [*alpaca_rows(19), {"instruction": "only"}])
    graph.ingest("sft", "a.jsonl")
    graph.select("sft", SMALL | {"budget_samples": 9})
    result = probe(graph)
    metadata = metadata_of(result, "sft", "loss_probe")
    assert checks_of(result) == {RISK_CHECK: True}
    row = row_of(graph, 1)
    manifest = graph.root["sft"].versions.manifest(1)
    assert row["R"] == manifest["compression_ratio"]["deflate"]  # type: ignore[index]
    assert 0 < row["R_spread"] < row["R"]
    assert (row["L"], row["L_spread"]) == (1.0, 0.01)
    assert row["series"] == law_series({"series": "series of tiny"}, manifest)
    assert (row["Q"], row["Q_name"]) == (0.95, "filter pass rate")
    assert (row["strategy"], row["verdict"], row["override"]) == ("zip", "first", None)
    assert row["num_tokens"] == manifest["picked_tokens"]
    assert list(metadata)[:4] == ["verdict", "reason", "version", "figures"]
    assert list(metadata)[-1] == "settings"
    assert metadata["verdict"] == "first: may be trained"
    assert metadata["measured"].endswith("tokens; 2 rows cut off, 1 left out")
    assert "| L | 1 ± 0.01 |  | nats per token |" in metadata["figures"]
    # One version makes no picture of versions.
    assert metadata["versions"] == "not drawn: that takes two points"
    assert metadata["plot"].startswith("![sft version 1: loss of the probe](data:image/png")
    assert "no earlier version" in metadata["reason"]


def test_rise_of_redundancy_and_loss_blocks(fifth: Graph, fake: FakeProbe) -> None:
    """R and L up: the check fails with the numbers and versions, and stays so in the table."""
    fake.L = 1.5
    result = probe(fifth)
    (check,) = result.get_asset_check_evaluations()
    assert (check.check_name, check.passed, check.blocking) == (RISK_CHECK, False, True)
    assert check.description is not None
    assert "L rose to 1.5, +0.495 against 1.005" in check.description
    assert "R rose to" in check.description
    assert "versions 1, 2, 3 and 4" in check.description
    numbers = {name: value.value for name, value in check.metadata.items()}
    assert (numbers["verdict"], numbers["compared_with"]) == ("risk", [1, 2, 3, 4])
    assert numbers["L_reference"] == pytest.approx(1.005)
    assert row_of(fifth, 5)["verdict"] == "risk"


def test_rise_of_redundancy_alone_does_not_block(fifth: Graph) -> None:
    """R up at equal L is a warning in words; the check passes."""
    result = probe(fifth)
    assert checks_of(result) == {RISK_CHECK: True}
    assert row_of(fifth, 5)["verdict"] == "redundancy_warning"


def test_blocked_version_is_not_trained_in_the_same_run(fifth: Graph, fake: FakeProbe) -> None:
    """Probe and model asked for together: the model's step is skipped."""
    fake.L = 1.5
    keys = [loss_probe_key("sft"), model_key("sft")]
    result = dg.materialize(
        [loss_probe_asset("sft"), model_asset("sft")],
        instance=fifth.instance,
        resources=fifth.resources,
        selection=keys,
        raise_on_error=False,
    )
    assert not result.success
    skipped = [event.step_key for event in result.all_node_events if event.is_step_skipped]
    started = [event.step_key for event in result.all_node_events if event.is_step_start]
    assert started == ["sft__loss_probe"]
    assert skipped in ([], ["sft__model"])


def test_blocked_version_is_told_to_the_webhook(fifth: Graph, fake: FakeProbe) -> None:
    """The law's words and numbers alone: the run did not fail by anything else."""
    fake.L = 1.5
    result = probe(fifth)
    (check,) = result.get_asset_check_evaluations()
    assert told(fifth, result) == [
        f"zip_pipeline: The entropy law blocks sft version 5: {check.description}"
    ]


def test_blocked_version_is_refused_in_a_later_run(fifth: Graph, fake: FakeProbe) -> None:
    """A run of its own looks the verdict up, names the reason and the way out."""
    fake.L = 1.5
    probe(fifth)
    result = run(fifth, TRAINING, model_key("sft"))
    assert not result.success
    assert error_of(result).startswith("dagster._core.definitions.events.Failure: sft version 5 is")
    assert "give a reason under `override` in the launchpad" in error_of(result)


def test_version_without_verdict_is_refused(fifth: Graph) -> None:
    """Nothing is trained unprobed, not even with an override."""
    result = run(fifth, TRAINING, model_key("sft"), override="I know better")
    assert "no verdict yet; materialise sft/loss_probe first" in error_of(result)
    assert 5 not in read_versions(fifth.root)["version"].to_list()


def fake_training(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[dict[str, Any]]]:
    """Put a fake in the place of training; return the jobs that it got."""
    jobs: list[dict[str, Any]] = []

    probe_process = law.run_modules

    def train(context: object, module: str, todo: dict[Path, dict[str, Any]]) -> None:
        if module.endswith(".probe"):
            probe_process(context, module, todo)
            return
        (job,) = todo.values()
        jobs.append({"module": module, **job})
        output = Path(job["output"])
        (output / "model").mkdir(parents=True, exist_ok=True)
        (output / "model" / "config.json").write_text("{}")
        (output / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1}\n')
        record = {
            "fingerprint": f"fingerprint {len(jobs)}",
            "preset": job["preset"],
            "settings": {"max_length": 256},
            "model": {"source": job.get("sft_model", "base"), "revision": None},
            "backend": {"device": "cpu"},
            "batch": {"effective": 16},
            "rows": {"num_samples": 30, "num_rows": 29, "rows_truncated": 3, "rows_dropped": 1},
            "num_steps": 2,
            "train_loss": 1.5,
            "final_loss": 1.0,
            "seconds": 0.1,
            "resumed_at_step": 0,
        }
        (output / "training.json").write_text(json.dumps(record))

    monkeypatch.setattr(law, "run_modules", train)
    return lambda: jobs


@pytest.mark.usefixtures("real_figures")
def test_override_lets_a_blocked_version_through(
    fifth: Graph, fake: FakeProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason in the launchpad of the training run is recorded with the run, and holds."""
    jobs = fake_training(monkeypatch)
    fake.L = 1.5
    probe(fifth)
    result = run(fifth, TRAINING, model_key("sft"), override="needed for the audit, Ada")
    metadata = metadata_of(result, "sft", "model")
    assert row_of(fifth, 5)["override"] == f"needed for the audit, Ada (run {result.run_id})"
    assert "| rows truncated | 3 |  |" in metadata["figures"]
    assert "| rows dropped | 1 |  |" in metadata["figures"]
    assert "| mean loss | 1.5 | nats per token |" in metadata["figures"]
    assert list(metadata)[:3] == ["verdict", "override", "summary"]
    assert metadata["verdict"] == "risk"
    assert metadata["override"].startswith("needed for the audit, Ada")
    assert metadata["plot"].startswith("![sft version 5: training loss](data:image/png")
    assert len(jobs()) == 1
    again = probe(fifth)
    (check,) = again.get_asset_check_evaluations()
    assert check.passed
    assert check.description is not None
    assert "Trained nevertheless: needed for the audit, Ada" in check.description


def test_override_in_the_probe_passes_the_check(fifth: Graph, fake: FakeProbe) -> None:
    """Given before the verdict is known, the reason is recorded and the check passes."""
    fake.L = 1.5
    result = probe(fifth, override="a dry run")
    assert checks_of(result) == {RISK_CHECK: True}
    assert row_of(fifth, 5)["verdict"] == "risk"
    assert row_of(fifth, 5)["override"] == f"a dry run (run {result.run_id})"


def test_blank_override_is_none(fifth: Graph, fake: FakeProbe) -> None:
    """Spaces are no reason."""
    fake.L = 1.5
    assert checks_of(probe(fifth, override="  ")) == {RISK_CHECK: False}


def test_version_is_measured_once(fifth: Graph, fake: FakeProbe) -> None:
    """The same job is not run again; another preset is, and starts a series of its own."""
    probe(fifth)
    probe(fifth)
    assert len(fake.jobs) == 1
    assert metadata_of(probe(fifth, preset="mistral-7b"), "sft", "loss_probe")["verdict"] == (
        "not_comparable: may be trained"
    )
    assert len(fake.jobs) == 2
    assert "it starts a new series" in row_of(fifth, 5)["reason"]


def test_other_budget_is_another_series(fifth: Graph) -> None:
    """A larger subset of one pool is more redundant, so it is not compared with a smaller one."""
    fifth.select("sft", SMALL | {"budget_samples": 35})
    metadata = metadata_of(probe(fifth), "sft", "loss_probe")
    assert metadata["verdict"] == "not_comparable: may be trained"
    assert '"value": 35' in metadata["settings"]
    assert row_of(fifth, 6)["series"] != SERIES


def test_short_probe_is_told(fifth: Graph, fake: FakeProbe) -> None:
    """A version that is too small for all steps of the probe says so, and what to do."""
    fake.num_steps = 2
    metadata = metadata_of(probe(fifth), "sft", "loss_probe")
    assert metadata["measured"].startswith("2 of 3 steps, ")
    assert "had 2 of 3 steps: raise the budget, or lower probe.steps" in metadata["reason"]
    assert metadata["reason"].endswith("It compares only with versions that had as many.")
    assert row_of(fifth, 5)["reason"] == metadata["reason"]


def test_tiny_model_on_text_that_it_does_not_know_is_told(fifth: Graph, fake: FakeProbe) -> None:
    """With what to take in its place; another model's loss may be as high."""
    fake.L = 8.94
    probe(fifth)
    assert "an L of 8.9 says little here" in row_of(fifth, 5)["reason"]
    assert "smollm2-135m in [training]" in row_of(fifth, 5)["reason"]
    probe(fifth, preset="mistral-7b")
    assert "says little" not in row_of(fifth, 5)["reason"]


def test_wrong_training_file_fails_what_needs_it(fifth: Graph) -> None:
    """The code location loads; the probe, and what counts the model's tokens, say what is wrong."""
    (fifth.path / "zip_pipeline.toml").write_text('[training]\npresets = "tiny"\n')
    for result in (fifth.select("sft", {"seed": 9}), probe(fifth)):
        assert "[training] presets: unknown; allowed are preset, overrides, " in error_of(result)


def test_training_file_sets_the_defaults(fifth: Graph, fake: FakeProbe) -> None:
    """What zip_pipeline.toml says reaches the job; the launchpad can change it."""
    (fifth.path / "zip_pipeline.toml").write_text(
        '[training]\npreset = "tiny"\noverrides = {max_length = 99}\n'
    )
    probe(fifth)
    assert fake.jobs[-1]["overrides"] == {"max_length": 99}
    probe(fifth, overrides={"max_length": 77})
    assert fake.jobs[-1]["overrides"] == {"max_length": 77}


def test_preference_training_starts_from_the_newest_sft_model(
    fifth: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KTO gets the folder of the newest SFT model, or the one that is named; with neither it is
    refused.
    """
    from zip_pipeline_tests.defs.graph import pair_rows

    jobs = fake_training(monkeypatch)
    fifth.drop("preference", "p.jsonl", pair_rows(12))
    fifth.ingest("preference", "p.jsonl")
    fifth.select("preference", SMALL)
    run(fifth, RESELECTION, loss_probe_key("preference"))
    metadata_of(
        run(fifth, TRAINING, model_key("preference"), sft_model="mine"), "preference", "model"
    )
    assert jobs().pop()["sft_model"] == "mine"
    refused = run(fifth, TRAINING, model_key("preference"))
    assert "there is none yet; materialise sft/model first" in error_of(refused)
    probe(fifth)
    metadata_of(run(fifth, TRAINING, model_key("sft")), "sft", "model")
    metadata_of(run(fifth, TRAINING, model_key("preference")), "preference", "model")
    sft, preference = jobs()
    assert sft["module"] == "zip_pipeline.training.trainers.sft"
    assert "sft_model" not in sft
    assert preference["module"] == "zip_pipeline.training.trainers.kto"
    assert preference["sft_model"] == str(fifth.root["sft"].models(5) / "model")
