"""The asset of reports: what it writes, and what the UI shows of it."""

from functools import partial

import dagster as dg
import pytest

from zip_pipeline.defs import law
from zip_pipeline.defs.automation import EVALUATION_JOB
from zip_pipeline.defs.keys import report_key
from zip_pipeline.samples import Stage
from zip_pipeline.workflow.reports import remove_old_pages
from zip_pipeline_tests.defs.graph import QUIET, Graph, alpaca_rows, metadata_of


def _report(graph: Graph, stage: Stage) -> dg.ExecuteInProcessResult:
    return graph.repository.get_job(EVALUATION_JOB).execute_in_process(
        instance=graph.instance, run_config=QUIET, asset_selection=[report_key(stage)]
    )


@pytest.mark.usefixtures("real_figures")
def test_report_is_written_and_linked(graph: Graph) -> None:
    """The page lies in the data root; path, link and verdict are metadata of the asset."""
    graph.drop("sft", "a.jsonl", alpaca_rows(19))
    graph.ingest("sft", "a.jsonl")
    graph.select("sft")
    metadata = metadata_of(_report(graph, "sft"), "sft", "report")
    page = graph.path / "reports" / "sft" / "v000001.html"
    assert page.exists()
    assert metadata["version"] == 1
    assert metadata["path"] == str(page)
    assert metadata["link"] == page.as_uri()
    assert metadata["card"] == str(page.with_suffix("") / "README.md")
    verdict = "Version 1 is not judged yet. Materialise sft/loss_probe for a verdict."
    assert metadata["verdict"] == verdict


@pytest.mark.usefixtures("real_figures")
def test_pages_of_old_versions_go(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each report removes those beyond the latest ones."""
    monkeypatch.setattr(law, "remove_old_pages", partial(remove_old_pages, num_kept=1))
    for name, first in (("a.jsonl", 0), ("b.jsonl", 100)):
        graph.drop("sft", name, alpaca_rows(19, first=first))
        graph.ingest("sft", name)
        graph.select("sft")
        _report(graph, "sft")
    pages = (graph.path / "reports" / "sft").glob("*.html")
    assert [page.name for page in pages] == ["v000002.html"]


def test_report_of_a_stage_without_versions_says_so(graph: Graph) -> None:
    """A team without preference pairs has no failed run each night."""
    result = _report(graph, "preference")
    assert metadata_of(result, "preference", "report") == {"note": "no version of preference yet"}
