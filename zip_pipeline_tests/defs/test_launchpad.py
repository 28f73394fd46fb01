"""What the launchpad offers, and what an empty option means."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from zip_pipeline.defs.automation import RESELECTION
from zip_pipeline.defs.law import loss_probe_asset
from zip_pipeline.defs.resources import TrainingOptions, selection_options
from zip_pipeline.defs.stage import zip_subset_asset
from zip_pipeline.selection.config import SelectionConfig
from zip_pipeline.settings import TrainingSettings
from zip_pipeline_tests.defs.graph import Graph, alpaca_rows, metadata_of


def _shown(asset: dg.AssetsDefinition) -> dict[str, Any]:
    """Return the fields of an asset's launchpad as the UI gets them."""
    config_type: Any = asset.op.config_schema.config_type
    return dict(config_type.fields)


def test_launchpad_offers_every_field_with_description_and_range() -> None:
    """All fields but the mode for raw files are there, empty, in the words of the settings."""
    shown = _shown(zip_subset_asset("sft"))
    assert shown.pop("make_default").default_value is False
    assert list(shown) == [n for n in SelectionConfig.model_fields if n != "reference_compat"]
    for name, field in shown.items():
        assert (field.is_required, field.default_value) == (False, None)
        assert field.description.startswith(SelectionConfig.about(name))
        assert field.description.endswith(" Empty: what zip_pipeline.toml says.")
    assert "Allowed: 1 to 1000. " in shown["num_shards"].description
    assert "Allowed: zip, " in shown["strategy"].description


def test_launchpad_of_training_has_the_override_besides() -> None:
    """The reason to train a blocked version is of one run, and in no file."""
    shown = _shown(loss_probe_asset("sft"))
    assert list(shown) == [*TrainingSettings.model_fields, "override"]
    assert "Allowed: 1 and up. " in shown["num_devices"].description


def test_given_options_are_those_that_are_not_empty() -> None:
    """None is empty; zero, nothing in a table, and nothing deeper in it are values."""
    given = selection_options()(seed=0, quotas={}, k1=None).given()
    assert given == {"seed": 0, "quotas": {}}
    overrides = {"lora": None}
    training = TrainingOptions(overrides=overrides, override="a test")
    assert training.given() == {"overrides": overrides}


@pytest.mark.parametrize(
    ("given", "num_picked", "strategy"),
    [
        ({}, 5, "long_range"),
        ({"strategy": None, "budget_samples": None}, 5, "long_range"),
        ({"budget_samples": 3}, 3, "long_range"),
        ({"budget_bytes": 300}, 4, "long_range"),
        ({"budget_samples": "50%"}, 6, "long_range"),
        ({"strategy": "random"}, 5, "random"),
    ],
)
def test_empty_options_are_what_the_file_says_by_then(
    graph: Graph, given: dict[str, Any], num_picked: int, strategy: str
) -> None:
    """The file is read when the asset runs; what is given replaces it, any budget its budget."""
    file: Path = graph.path / "zip_pipeline.toml"
    file.write_text('[sft]\nbudget_samples = 5\nstrategy = "long_range"\n')
    graph.drop("sft", "a.jsonl", alpaca_rows(12))
    assert graph.ingest("sft", "a.jsonl").success
    metadata = metadata_of(graph.select("sft", given), "sft", "zip_subset")
    assert (metadata["num_picked"], metadata["strategy"]) == (num_picked, strategy)


def test_a_wrong_choice_is_refused_by_the_check_of_the_launchpad(graph: Graph) -> None:
    """Before anything is launched; the field's description has all names that there are."""
    job = graph.repository.get_job(RESELECTION)
    ops = {"sft__zip_subset": {"config": {"strategy": "best"}}}
    with pytest.raises(dg.DagsterInvalidConfigError) as refused:
        dg.validate_run_config(job, {"ops": ops})
    assert "config:strategy not in enum type strategy got best" in str(refused.value)
    ops["sft__zip_subset"]["config"]["strategy"] = "long_range"
    assert dg.validate_run_config(job, {"ops": ops})


def test_options_of_one_run_say_so_and_can_be_made_the_default(graph: Graph) -> None:
    """The table keeps its comments and its other keys, and a budget replaces that of the table."""
    file: Path = graph.path / "zip_pipeline.toml"
    written = "# ours\n[sft]\nbudget_samples = 5 # a week\nseed = 3\n\n[held_out]\nshare = 0.0\n"
    file.write_text(written)
    graph.drop("sft", "a.jsonl", alpaca_rows(12))
    assert graph.ingest("sft", "a.jsonl").success
    given: dict[str, Any] = {"strategy": "random", "budget_bytes": "50%"}
    one_off = metadata_of(graph.select("sft", given), "sft", "zip_subset")
    assert one_off["one_off"] == (
        "One-off: strategy random, budget_bytes 50% of the launchpad count for this run alone. The "
        "next nightly run selects by zip_pipeline.toml again (strategy coverage, budget_samples "
        "5). To keep them, launch with make_default: true"
    )
    assert file.read_text() == written
    kept = metadata_of(graph.select("sft", given | {"make_default": True}), "sft", "zip_subset")
    assert "one_off" not in kept
    assert file.read_text() == (
        '# ours\n[sft]\nseed = 3\nbudget_bytes = "50%"\nstrategy = "random"\n\n'
        "[held_out]\nshare = 0.0\n"
    )
    usual = metadata_of(graph.select("sft", {}), "sft", "zip_subset")
    assert (usual["version"], usual["reused"]) == (one_off["version"], True)
    assert "one_off" not in usual


def test_a_default_that_is_wrong_is_not_written(graph: Graph) -> None:
    """What cannot be selected by is in no file."""
    graph.drop("sft", "a.jsonl", alpaca_rows(3))
    assert graph.ingest("sft", "a.jsonl").success
    assert not graph.select("sft", {"k1": 0, "make_default": True}).success
    assert not (graph.path / "zip_pipeline.toml").exists()
