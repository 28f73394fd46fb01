"""Training that follows a new version by itself."""

import dagster as dg
import pytest

from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.keys import (
    ENTROPY_LAW,
    EVALUATION,
    RISK_CHECK,
    loss_probe_key,
    model_key,
    report_key,
    zip_subset_key,
)
from zip_pipeline_tests.defs.graph import Graph

SFT = model_key("sft")


class History:
    """Writes an instance's history as runs would, and asks what automation wants next."""

    def __init__(self, graph: Graph) -> None:
        self._instance = graph.instance
        self._definitions = code_location(graph.path)
        self._state: object = None

    def materialised(self, key: dg.AssetKey, data_version: str) -> None:
        """Record a materialisation."""
        tags = {"dagster/data_version": data_version}
        self._instance.report_runless_asset_event(dg.AssetMaterialization(key, tags=tags))

    def judged(self, *, passed: bool) -> None:
        """Record an outcome of the law's check."""
        self._instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=loss_probe_key("sft"),
                check_name=RISK_CHECK,
                passed=passed,
                blocking=True,
            )
        )

    def wanted(self, *keys: dg.AssetKey) -> set[dg.AssetKey]:
        """Return which of the assets automation asks for at this tick."""
        result = dg.evaluate_automation_conditions(
            defs=self._definitions,
            instance=self._instance,
            asset_selection=dg.AssetSelection.assets(*keys),
            cursor=self._state,  # type: ignore[arg-type]
        )
        self._state = result.cursor
        return {key for key in keys if result.get_num_requested(key)}


@pytest.fixture
def history(graph: Graph) -> History:
    """Return the history of a graph whose first version was selected, probed and let through."""
    found = History(graph)
    found.wanted(SFT)
    found.materialised(zip_subset_key("sft"), "subset 1")
    found.materialised(loss_probe_key("sft"), "loss 1")
    found.judged(passed=True)
    return found


def test_new_version_that_may_train_is_asked_for_once(history: History) -> None:
    """A changed data version with a passed check is trained, at one tick only."""
    assert history.wanted(SFT) == {SFT}
    assert history.wanted(SFT) == set()


def test_unchanged_version_is_not_trained_again(history: History) -> None:
    """A nightly selection that comes to the same subset asks for nothing."""
    history.wanted(SFT)
    history.materialised(SFT, "model 1")
    history.wanted(SFT)
    history.materialised(zip_subset_key("sft"), "subset 1")
    history.materialised(loss_probe_key("sft"), "loss 1")
    assert history.wanted(SFT) == set()


def test_blocked_version_is_not_asked_for(history: History) -> None:
    """Where the law's check failed, nothing is trained; once it passes by an override, it is,
    though the model before was finished after the change.
    """
    assert [history.wanted(SFT), history.wanted(SFT)] == [{SFT}, set()]
    history.materialised(zip_subset_key("sft"), "subset 2")
    history.materialised(loss_probe_key("sft"), "loss 2")
    history.judged(passed=False)
    assert history.wanted(SFT) == set()
    history.materialised(SFT, "model 1")
    history.materialised(loss_probe_key("sft"), "loss 2")
    history.judged(passed=True)
    assert history.wanted(SFT) == {SFT}


def test_figures_follow_a_probe_even_of_a_blocked_version(history: History) -> None:
    """What was measured is drawn, whatever the verdict."""
    history.judged(passed=False)
    history.wanted(ENTROPY_LAW)
    history.materialised(loss_probe_key("sft"), "loss 2")
    assert history.wanted(ENTROPY_LAW) == {ENTROPY_LAW}
    assert history.wanted(ENTROPY_LAW) == set()


def test_evaluation_follows_the_model_of_either_stage(history: History) -> None:
    """A team without preference pairs has its SFT models evaluated all the same."""
    history.wanted(EVALUATION)
    history.materialised(SFT, "model 1")
    assert history.wanted(EVALUATION) == {EVALUATION}
    assert history.wanted(EVALUATION) == set()


def test_reports_follow_a_probe_even_of_a_blocked_version(history: History) -> None:
    """A blocked version has its report: that is the one that a person has to read."""
    report = report_key("sft")
    history.judged(passed=False)
    history.wanted(report)
    history.materialised(loss_probe_key("sft"), "loss 2")
    assert history.wanted(report) == {report}
    assert history.wanted(report) == set()
