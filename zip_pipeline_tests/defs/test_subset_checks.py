"""The checks of a subset pass and fail when they should, and can be run again alone."""

import json
from pathlib import Path
from random import Random

import dagster as dg
import polars as pl
import pytest

from zip_pipeline.defs.automation import RESELECTION
from zip_pipeline.files import write_table
from zip_pipeline.workflow.versions import StoredVersion
from zip_pipeline_tests.defs.graph import QUIET, SMALL, Graph, alpaca_rows, checks_of


@pytest.fixture
def selected(graph: Graph) -> Graph:
    """Return a graph with one version of 5 out of 40 samples."""
    graph.drop("sft", "a.jsonl", alpaca_rows(40))
    assert graph.ingest("sft", "a.jsonl").success
    assert graph.select("sft").success
    return graph


def _check_again(graph: Graph, name: str) -> dg.AssetCheckEvaluation:
    """Run one check alone, as its button in the UI does."""
    key = dg.AssetCheckKey(dg.AssetKey(["sft", "zip_subset"]), name)
    job = graph.repository.get_job(RESELECTION).get_subset(asset_check_selection={key})
    result = job.execute_in_process(instance=graph.instance, run_config=QUIET)
    (evaluation,) = result.get_asset_check_evaluations()
    assert evaluation.check_name == name
    return evaluation


def _version(graph: Graph) -> Path:
    """Return the folder of a version without hashes: what is written into it counts."""
    folder = graph.root["sft"].versions.path(1)
    (folder / "hashes.json").unlink(missing_ok=True)
    return folder


def test_checks_pass_on_a_fresh_version_and_alone(selected: Graph) -> None:
    """Both checks run with the subset and again on their own, without a new version."""
    assert checks_of(selected.select("sft")) == {
        "as_written": True,
        "within_budget": True,
        "less_redundant_than_random": True,
    }
    assert _check_again(selected, "within_budget").description == "version 1: 5 of 5 samples"
    assert _check_again(selected, "less_redundant_than_random").passed
    assert selected.root["sft"].versions.numbers() == [1]


def test_no_step_holds_all_picks(selected: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of a version, and its checks, read the picks in parts: they may be many."""

    def refused(_: StoredVersion) -> pl.DataFrame:
        raise AssertionError("all picks were read")

    monkeypatch.setattr(StoredVersion, "subset", property(refused))
    result = selected.select("sft", {**SMALL, "budget_samples": 7})
    assert result.success
    assert checks_of(result)["less_redundant_than_random"]


@pytest.mark.parametrize("unit", ["samples", "tokens", "bytes"])
def test_within_budget_fails_on_a_version_beyond_its_budget(selected: Graph, unit: str) -> None:
    """The used samples, tokens and bytes are counted anew and compared with the manifest."""
    path = _version(selected) / "manifest.json"
    manifest = json.loads(path.read_text())
    used = {
        "samples": 5,
        "tokens": manifest["picked_tokens"],
        "bytes": manifest["picked_bytes"],
    }[unit]
    for limit, passed in ((used, True), (used - 1, False)):
        path.write_text(json.dumps(manifest | {"budget": {"unit": unit, "value": limit}}))
        check = _check_again(selected, "within_budget")
        assert (check.passed, check.severity.value) == (passed, "ERROR")
        assert check.description == f"version 1: {used:,} of {limit:,} {unit}"


def test_within_budget_fails_when_ledger_and_subset_disagree(selected: Graph) -> None:
    """Rows that the ledger did not pick are an error even within the budget."""
    path = _version(selected) / "subset.parquet"
    write_table(path, pl.read_parquet(path).tail(4), {})
    check = _check_again(selected, "within_budget")
    assert not check.passed
    assert "the ledger's picks are not the rows of the subset" in (check.description or "")


def test_less_redundant_fails_on_a_redundant_subset(selected: Graph) -> None:
    """A subset of one sample five times has a higher R than a random one: a warning."""
    path = _version(selected) / "subset.parquet"
    write_table(path, pl.concat([pl.read_parquet(path).head(1)] * 5), {})
    check = _check_again(selected, "less_redundant_than_random")
    assert (check.passed, check.severity.value) == (False, "WARN")
    figures = {name: value.value for name, value in check.metadata.items()}
    for codec in ("deflate", "zstd"):
        name = f"compression_ratio_{codec}"
        assert figures[f"subset_{name}"] > figures[f"random_{name}"]


@pytest.mark.parametrize(("codec", "passed"), [("deflate", True), ("zstd", False)])
def test_less_redundant_judges_by_the_codec_that_selected(
    selected: Graph, codec: str, passed: bool
) -> None:
    """Two texts far apart are new to deflate and known to zstd: each version by its own codec."""
    noise = [Random(number).randbytes(24_000).hex() for number in range(2)]
    rows = [{"instruction": "Repeat.", "output": text} for text in noise]
    selected.drop("sft", "noise.jsonl", rows)
    assert selected.ingest("sft", "noise.jsonl").success
    folder = _version(selected)
    fresh = selected.root["sft"].samples("noise.jsonl")
    subset = pl.read_parquet(folder / "subset.parquet")
    far_apart = pl.concat([pl.read_parquet(fresh)] * 2).select(subset.columns[:8])
    write_table(folder / "subset.parquet", far_apart, {})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["codec"] = codec
    (folder / "manifest.json").write_text(json.dumps(manifest))
    check = _check_again(selected, "less_redundant_than_random")
    assert check.passed == passed
    assert f"({codec}, lower is better)" in (check.description or "")


@pytest.mark.parametrize(("budget", "num_picked"), [(40, 40), (1000, 40)])
def test_less_redundant_passes_where_there_was_nothing_to_choose(
    selected: Graph, budget: int, num_picked: int
) -> None:
    """The whole pool is no worse than random."""
    result = selected.select("sft", {**SMALL, "budget_samples": budget})
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["less_redundant_than_random"].passed
    assert checks["less_redundant_than_random"].description == (
        f"version 2: {num_picked} of 40 samples picked, so there was nothing to choose"
    )


def test_checks_without_a_version_say_what_to_do(graph: Graph) -> None:
    """A check before the first version fails, and its own description is the remedy."""
    for name in ("within_budget", "less_redundant_than_random"):
        check = _check_again(graph, name)
        assert not check.passed
        assert check.description == ("sft: no version yet; materialise sft/zip_subset first")
