"""Z of the trained versions."""

from typing import Any

import dagster as dg
import polars as pl
import pytest

from zip_pipeline.defs import law
from zip_pipeline.defs.automation import EVALUATION_JOB
from zip_pipeline.defs.keys import ENTROPY_LAW, EVALUATION
from zip_pipeline.entropy_law.table import SCHEMA, read_versions, upsert_version
from zip_pipeline.evaluation.evaluators import evaluators
from zip_pipeline.evaluation.held_out import has_seen
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.workflow.versions import select_version
from zip_pipeline_tests.defs.graph import QUIET, Graph, error_of, metadata_of
from zip_pipeline_tests.defs.trained_roots import HELD_OUT, FakeEvaluation, ingested, trained

NUM_VERSIONS = evaluators["held_out"].num_versions


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEvaluation:
    """Put a fake in the place of the processes."""
    found = FakeEvaluation()
    monkeypatch.setattr(law, "run_modules", found)
    return found


@pytest.fixture
def pool(graph: Graph) -> Graph:
    """Return a graph with a pool of sft of which a tenth is held out."""
    (graph.path / "zip_pipeline.toml").write_text(HELD_OUT)
    ingested(graph.root, "a.jsonl", 40)
    return graph


def version(graph: Graph, num_samples: int, *, is_trained: bool = True) -> int:
    """Write a version of sft; return its number."""
    config = SelectionConfig(strategy="zip", budget_samples=num_samples, k1=20, k2=6, k3=3)
    number = select_version(graph.root["sft"], config, print)
    if is_trained:
        trained(graph.root["sft"], number)
    return number


def materialise(graph: Graph, *keys: dg.AssetKey) -> dg.ExecuteInProcessResult:
    """Materialise assets of the evaluation job."""
    return graph.repository.get_job(EVALUATION_JOB).execute_in_process(
        instance=graph.instance,
        run_config=QUIET,
        raise_on_error=False,
        asset_selection=list(keys),
    )


def rows_of(graph: Graph) -> dict[int, dict[str, Any]]:
    """Return the table of versions by number."""
    return {row["version"]: row for row in read_versions(graph.root).to_dicts()}


def test_trained_versions_get_the_negated_held_out_loss(pool: Graph, fake: FakeEvaluation) -> None:
    """Z is minus the loss, its spread and samples are named; what is not trained has none."""
    version(pool, 5)
    version(pool, 6)
    version(pool, 7, is_trained=False)
    metadata = metadata_of(materialise(pool, EVALUATION), "evaluation")
    rows = rows_of(pool)
    assert [(n, rows[n]["Z"], rows[n]["Z_spread"]) for n in rows] == [(1, -1, 0.1), (2, -2, 0.1)]
    assert rows[1]["Z_name"] == "minus held-out loss, start base01, samples 012345"
    assert next(iter(metadata.items())) == (
        "summary",
        "sft version 2: Z -2 ± 0.1, higher is better (minus held-out loss, start base01, samples "
        "012345).",
    )
    assert (metadata["Z_sft"], metadata["version_sft"]) == (-2, 2)
    assert metadata["bits_per_byte_sft"] == 0.5
    assert "accuracy_sft" not in metadata
    assert "| web" in metadata["sources_sft"]
    (module, job), _ = fake.jobs
    assert module == "held_out"
    assert job["model"] == str(pool.root["sft"].models(1) / "model")
    assert job["samples"] == str(pool.root["sft"].held_out)
    assert (job["stage"], job["max_length"]) == ("sft", 256)


def test_accuracy_is_shown_where_there_is_one(pool: Graph, fake: FakeEvaluation) -> None:
    """As of pairs."""
    fake.accuracy = 0.75
    version(pool, 5)
    assert metadata_of(materialise(pool, EVALUATION), "evaluation")["accuracy_sft"] == 0.75


def test_nothing_is_evaluated_twice(pool: Graph, fake: FakeEvaluation) -> None:
    """Only a model that was trained anew, or a set that grew, is measured again."""
    version(pool, 5)
    version(pool, 6)
    for _ in range(2):
        metadata_of(materialise(pool, EVALUATION), "evaluation")
    assert len(fake.jobs) == 2
    trained(pool.root["sft"], 2, fingerprint="second")
    materialise(pool, EVALUATION)
    assert len(fake.jobs) == 3
    ingested(pool.root, "b.jsonl", 40, first=100)
    version(pool, 7)
    materialise(pool, EVALUATION)
    assert len(fake.jobs) == 6


def test_version_that_picked_held_out_samples_has_no_z(pool: Graph, fake: FakeEvaluation) -> None:
    """A set that is drawn anew leaves out the versions that have seen some of it."""
    number = version(pool, 20)
    picked = pl.read_parquet(pool.root["sft"].versions.path(number) / "subset.parquet")
    assert not has_seen(pool.root["sft"], number)
    held_out = pl.read_parquet(pool.root["sft"].held_out)
    held_out.vstack(picked.head(1).select(held_out.columns)).write_parquet(
        pool.root["sft"].held_out
    )
    assert has_seen(pool.root["sft"], number)
    metadata = metadata_of(materialise(pool, EVALUATION), "evaluation")
    assert fake.jobs == []
    assert metadata["summary"] == "No model is trained yet, or nothing is held out."


def test_only_the_latest_versions_are_measured_again(pool: Graph, fake: FakeEvaluation) -> None:
    """A set that grows does not start an evaluation of every model there ever was."""
    for num_samples in range(1, NUM_VERSIONS + 3):
        version(pool, num_samples)
    materialise(pool, EVALUATION)
    assert len(fake.jobs) == NUM_VERSIONS
    assert min(rows_of(pool)) == 3


def test_mt_bench_takes_the_place_of_the_loss(pool: Graph, fake: FakeEvaluation) -> None:
    """Where a judge is configured, the latest version is asked, and its rating is Z."""
    version(pool, 5)
    version(pool, 6)
    for name in ("questions.jsonl", "prompts.jsonl"):
        (pool.path / name).write_text("")
    (pool.path / "zip_pipeline.toml").write_text(
        f'{HELD_OUT}\n[mt_bench]\nquestions = "questions.jsonl"\nprompts = "prompts.jsonl"\n'
        '[mt_bench.judge]\nurl = "http://localhost:1/v1"\nmodel = "j"\n'
    )
    metadata_of(materialise(pool, EVALUATION), "evaluation")
    ((module, job),) = fake.jobs
    assert (module, job["model_name"]) == ("mt_bench", "sft version 2")
    assert {n: (row["Z"], row["Z_name"]) for n, row in rows_of(pool).items()} == {
        2: (6.5, "MT-bench, judge j")
    }
    materialise(pool, EVALUATION)
    assert len(fake.jobs) == 1


@pytest.mark.usefixtures("real_figures")
def test_law_has_a_table_and_figures(pool: Graph) -> None:
    """Every version is in the table; the figures are in the UI and on disk."""
    for number in range(1, 8):
        row = {"stage": "sft", "version": number, "R": 3 + number / 10, "L": 2 + number / 20}
        upsert_version(pool.root, row | {"Z": 1 / number, "Z_name": "z", "series": "s"})
    upsert_version(pool.root, {"stage": "sft", "version": 7, "verdict": "risk"})
    metadata = metadata_of(materialise(pool, ENTROPY_LAW), "entropy_law")
    names = {f"sft_{name}" for name in ("versions", "Z_over_R", "Z_over_L", "R_over_L")}
    folder = pool.path / "entropy_law" / "figures"
    assert {path.stem for path in folder.iterdir()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert metadata["num_blocked"] == 1
    assert metadata["dagster/row_count"] == 7
    assert metadata["versions"].splitlines()[:3] == [
        "| version | R | L | Z | verdict |",
        "| --- | --- | --- | --- | --- |",
        "| sft 7 | 3.7 | 2.35 | 0.1429 | risk |",
    ]
    assert "Z over R" in metadata["sft_relations"]
    assert "insufficient" not in metadata["sft_relations"]
    assert next(iter(metadata)) == "sft_verdict"
    assert metadata["sft_verdict"].startswith("risk: ")
    columns = {column.name: column.description for column in metadata["column_schema"].columns}
    assert [name for name in SCHEMA if not columns[name]] == []
    assert metadata["plot_sft_versions"].startswith("![sft_versions](data:image/png")


def test_law_without_versions_says_what_to_do(graph: Graph) -> None:
    """Nothing probed yet is an error with a remedy."""
    assert "materialise sft/loss_probe" in error_of(materialise(graph, ENTROPY_LAW))
