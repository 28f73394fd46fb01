"""What a data engineer sees and clicks in the browser, over a real `dg dev`."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from zip_pipeline_tests.defs.graph import alpaca_rows
from zip_pipeline_tests.end_to_end.dev_server import DevServer, dev_server, make_project

pytestmark = pytest.mark.browser

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE_TIMEOUT_MILLISECONDS = 30_000
NUM_ROWS = 60
AUTOMATION = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
    sensors { name sensorState { status } }
    schedules { name scheduleState { status } } } } } }
"""


@contextmanager
def browser_page() -> Iterator[Page]:
    """Yield a page of headless Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=list(CHROMIUM_ARGUMENTS)
        )
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PAGE_TIMEOUT_MILLISECONDS)
        try:
            yield page
        finally:
            browser.close()


def _statuses(server: DevServer) -> dict[str, str]:
    (node,) = server.query(AUTOMATION)["repositoriesOrError"]["nodes"]
    found = {s["name"]: s["sensorState"]["status"] for s in node["sensors"]}
    return found | {s["name"]: s["scheduleState"]["status"] for s in node["schedules"]}


def metadata_of(materialization: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a materialisation by name."""
    values = ("intValue", "boolValue", "floatValue", "mdStr")
    return {
        entry["label"]: next((entry[v] for v in values if v in entry), None)
        for entry in materialization["metadataEntries"]
    }


def drop_questions(folder: Path) -> None:
    """Drop a file of rows as a careful writer does."""
    rows = "".join(json.dumps(row) + "\n" for row in alpaca_rows(NUM_ROWS))
    drop = folder / "data" / "raw" / "sft" / "questions.jsonl"
    part = drop.with_name(drop.name + ".part")
    part.write_text(rows)
    part.rename(drop)


def _see_the_graph(page: Page, server: DevServer, screenshot: Path) -> None:
    page.goto(f"{server.url}/locations/zip_pipeline/asset-groups/sft/lineage")
    for name in ("raw_pool", "compression_state", "zip_subset"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible(
            timeout=PAGE_TIMEOUT_MILLISECONDS
        )
    page.screenshot(path=screenshot)


def _click_materialize(page: Page, server: DevServer) -> None:
    page.goto(f"{server.url}/assets/sft/zip_subset")
    page.get_by_role("button", name="Materialize").first.click()
    expect(page.get_by_text("Launched run")).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)


def _see_the_plot(page: Page, server: DevServer, screenshot: Path) -> None:
    page.goto(f"{server.url}/assets/sft/zip_subset?view=events")
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_role("img", name="sft version 1: zip")
    expect(picture).to_be_visible(timeout=PAGE_TIMEOUT_MILLISECONDS)
    assert picture.evaluate("image => image.naturalWidth") > 500
    page.screenshot(path=screenshot)


def test_drop_becomes_a_subset_in_the_browser_and_history_survives(tmp_path: Path) -> None:
    """A dropped file is ingested with no click, Materialize makes a version of it, and after a
    restart of the server all of that is still there.
    """
    make_project(tmp_path)
    settings = "[sft]\nstrategy = 'zip'\nbudget_samples = 20\nk3 = 5\n"
    (tmp_path / "data" / "zip_pipeline.toml").write_text(settings)
    with dev_server(tmp_path) as server, browser_page() as page:
        names = ("sft_drops", "preference_drops", "nightly_reselection", "entropy_law_figures")
        running = dict.fromkeys(names, "RUNNING") | {
            "training_of_new_versions": "STOPPED",
        }
        assert _statuses(server) == running
        drop_questions(tmp_path)
        _see_the_graph(page, server, tmp_path / "graph.png")

        (state,) = server.wait(
            "the drop to be ingested", lambda: server.materializations("sft", "compression_state")
        )
        assert state["partition"] == "questions.jsonl"
        (pool,) = server.materializations("sft", "raw_pool")
        assert pool["partition"] == "questions.jsonl"
        assert metadata_of(pool)["num_samples"] == NUM_ROWS
        assert server.materializations("sft", "zip_subset") == []

        _click_materialize(page, server)
        (subset,) = server.wait(
            "the subset", lambda: server.materializations("sft", "zip_subset"), 90
        )
        server.wait("the run's end", lambda: server.run_status(subset["runId"]) == "SUCCESS")
        metadata = metadata_of(subset)
        assert (metadata["version"], metadata["reused"]) == (1, False)
        assert (metadata["num_picked"], metadata["budget_samples"]) == (20, 20)
        assert metadata["pool_compression_ratio_zstd"] > metadata["subset_compression_ratio_zstd"]
        assert (tmp_path / "data" / "versions" / "sft" / "v000001" / "manifest.json").exists()
        _see_the_plot(page, server, tmp_path / "plot.png")
        before = server.materializations("sft", "raw_pool")

    with dev_server(tmp_path) as server:
        assert server.materializations("sft", "raw_pool") == before
        assert server.materializations("sft", "zip_subset") == [subset]
        assert server.run_status(subset["runId"]) == "SUCCESS"
        assert _statuses(server) == running
