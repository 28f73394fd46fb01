"""Lineage by column, in Dagster's own metadata and as an OpenLineage server is told of it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from zip_pipeline.defs.automation import openlineage_sensors
from zip_pipeline.defs.code_location import code_location
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, metadata_of, pair_rows


def _names(lineage: dg.TableColumnLineage) -> dict[str, list[str]]:
    return {
        column: sorted(f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps)
        for column, deps in lineage.deps_by_column.items()
    }


def test_columns_of_a_subset_lead_to_those_that_they_are_made_of(graph: Graph) -> None:
    """Taken over from the pool under the same name, or computed from texts and their sizes."""
    graph.drop("preference", "a.jsonl", pair_rows(8))
    state = metadata_of(graph.ingest("preference", "a.jsonl"), "preference", "compression_state")
    texts = [f"preference/raw_pool.{name}" for name in ("chosen", "prompt", "rejected", "tools")]
    found = _names(state["dagster/column_lineage"])
    assert found["sample_id"] == ["preference/raw_pool.sample_id"]
    assert found["num_tokens"] == found["zstd_bytes"] == texts
    subset = metadata_of(graph.select("preference"), "preference", "zip_subset")
    found = _names(subset["dagster/column_lineage"])
    assert found["chosen"] == ["preference/raw_pool.chosen"]
    sizes = [f"preference/compression_state.{n}" for n in ("num_bytes", "num_tokens", "pi")]
    assert found["pi"] == found["rank"] == sizes + texts
    assert set(found) == {column.name for column in subset["column_schema"].columns}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what an OpenLineage server, which is named, is told."""
    from dagster_openlineage.emitter import OpenLineageEmitter
    from openlineage.client.serde import Serde

    events: list[dict[str, Any]] = []
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(
        OpenLineageEmitter, "emit", lambda _, event: events.append(json.loads(Serde.to_json(event)))
    )
    return events


@pytest.mark.parametrize("sharded", [False, True])
def test_a_lineage_server_is_told_of_each_column_once(
    graph: Graph, tmp_path: Path, told: list[dict[str, Any]], sharded: bool
) -> None:
    """A tick tells what was made since the last one: assets, their columns, and checks.

    Checks cannot be found in a history with a database for each run, as Dagster's own is.
    """
    if sharded:
        graph.instance = dg.DagsterInstance.local_temp(str(tmp_path))
    graph.drop("sft", "a.jsonl", alpaca_rows(8))
    assert graph.ingest("sft", "a.jsonl").success
    assert graph.select("sft").success
    (sensor,) = openlineage_sensors()
    context = dg.build_sensor_context(graph.instance)
    sensor.evaluate_tick(context)
    made = {
        output["name"]: output["facets"]
        for event in told
        for output in event["outputs"]
        if "columnLineage" in output["facets"]
    }
    assert sorted(made) == ["sft/compression_state", "sft/zip_subset"]
    turns = made["sft/zip_subset"]["columnLineage"]["fields"]["turns"]["inputFields"]
    assert [(field["name"], field["field"]) for field in turns] == [("sft/raw_pool", "turns")]
    assert "sft/raw_pool" in {output["name"] for event in told for output in event["outputs"]}
    assert ("within_budget" in json.dumps(told)) is not sharded
    num_told = len(told)
    sensor.evaluate_tick(dg.build_sensor_context(graph.instance, cursor=context.cursor))
    assert len(told) == num_told


def test_without_a_server_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor without the package, which is an extra: then a warning names it."""
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    assert openlineage_sensors() == []
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:1")
    sensors = code_location(tmp_path).sensors or []
    assert "openlineage" in [sensor.name for sensor in sensors]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert openlineage_sensors() == []
    assert "pip install 'zip-pipeline[openlineage]'" in caplog.text
