"""The page on a version, as a person uses it: opened from disk in headless Chromium."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from zip_pipeline.data_root import DataRoot
from zip_pipeline.report.trace import trace_sample
from zip_pipeline.samples import sample_id
from zip_pipeline.workflow.reports import write_report
from zip_pipeline_tests.end_to_end.test_ui import browser_page
from zip_pipeline_tests.report.reported_roots import HOSTILE, conversations, reported_root

pytestmark = pytest.mark.browser

NUM = 200


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """Return a root with three versions."""
    return reported_root(tmp_path_factory.mktemp("root"), NUM, num_versions=3)


@pytest.fixture(scope="module")
def page(root: DataRoot) -> Iterator[Page]:
    """Yield the page on the third version."""
    with browser_page() as found:
        _open(found, write_report(root, "sft").page)
        yield found


def _open(page: Page, path: Path) -> None:
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]")


def _count(page: Page, words: str) -> None:
    expect(page.locator("#count")).to_have_text(words)


def _clear(page: Page) -> None:
    page.fill("#query", "")
    for name in ("fate", "source", "change", "order"):
        page.select_option(f"#{name}", index=0)
    _count(page, f"{NUM} of {NUM} rows")


def test_verdict_comes_first(page: Page) -> None:
    """The first words below the title say what to do, and the figures are drawn."""
    words = page.inner_text("main").splitlines()
    assert words[0] == "Version 3 is not judged yet."
    assert page.locator("#standing svg text").count() > 10


def test_search_and_filters_narrow_the_list(root: DataRoot, page: Page) -> None:
    """Words, ids, fates, sources and changes are found, alone and together."""
    _clear(page)
    ledger_id = sample_id(conversations(NUM)[5])
    page.fill("#query", ledger_id[:9].upper())
    _count(page, f"1 of {NUM} rows")
    page.fill("#query", "tell me 77.")
    _count(page, f"1 of {NUM} rows")
    page.fill("#query", "raw/sft/drop.jsonl:6")
    _count(page, f"1 of {NUM} rows")
    assert page.locator("#list a").first.inner_text().split()[0] == ledger_id[:10]
    page.fill("#query", "op.jsonl:6")
    _count(page, f"0 of {NUM} rows; the row may be among the rejected, zip-pipeline trace tells")
    page.fill("#query", "")
    page.select_option("#fate", label="near duplicate (1)")
    _count(page, f"1 of {NUM} rows")
    _clear(page)
    page.select_option("#source", label="source 3 (29)")
    _count(page, f"29 of {NUM} rows")
    page.select_option("#fate", label="picked (41)")
    _count(page, f"5 of {NUM} rows")
    _clear(page)
    page.select_option("#change", label="in (1)")
    _count(page, f"1 of {NUM} rows")
    page.select_option("#change", label="out (1)")
    _count(page, f"1 of {NUM} rows")
    _clear(page)
    page.select_option("#order", value="pi-")
    assert page.locator("#list a").first.inner_text().split()[0] == _last_id()[:10]


def _last_id() -> str:
    return sample_id(conversations(NUM)[-1])


def test_a_sample_has_a_page_of_its_own(page: Page) -> None:
    """Its reason, its fate in every version, and the text that it repeats with the spans marked."""
    _clear(page)
    page.select_option("#fate", label="near duplicate (1)")
    page.locator("#list a").first.click()
    sample = page.locator("#sample")
    expect(sample).to_contain_text("marked as a near-duplicate: the same but for a few words.")
    why = "marked as a near-duplicate: the same but for a few words"
    expect(sample.locator("tr")).to_have_text(
        [
            f"3 (this)2026-01-03 03:04near duplicate{why}",
            f"22026-01-02 03:04near duplicate{why}",
            f"12026-01-01 03:04near duplicate{why}",
        ]
    )
    first = sample_id(conversations(NUM)[0])
    expect(sample.locator(".beside a")).to_have_text(first)
    marked = sample.locator(".beside > div").first.locator("mark").all_inner_texts()
    assert marked == [f"assistant: answer to {HOSTILE}"]
    sample.locator(".beside a").click()
    expect(sample.locator("h2")).to_have_text(f"Sample {first}")
    sample.get_by_role("button", name="Close").click()
    expect(sample).to_be_hidden()


def test_what_is_left_out_stands_beside_the_pick_that_it_repeats(page: Page) -> None:
    """The passage that both have is marked in both texts."""
    left = page.locator("#shown_examples article").filter(has_text=_last_id())
    expect(left.locator(".beside > div")).to_have_count(2)
    repeated = conversations(NUM)[2].turns[1].content
    marks = left.locator("mark").all_inner_texts()
    assert [mark.removeprefix("assistant: ") for mark in marks] == [repeated] * 2


def test_hostile_text_is_inert(page: Page) -> None:
    """Markup of the data is seen as it is: nothing runs, nothing is loaded, nothing is asked."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    first = sample_id(conversations(NUM)[0])
    page.evaluate(f"location.hash = '#sample={first}'")
    box = page.locator("#sample .text").first
    expect(box).to_contain_text(f"user: {HOSTILE} café")
    assert box.locator("script, img").count() == 0
    assert page.locator("img, iframe, object, link").count() == 0
    assert page.title() == "sft version 3"
    assert all(url.startswith("file://") for url in asked), asked
    page.evaluate("location.hash = '#ledger'")


def _luminance(page: Page) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(float(n) for n in colour.strip("rgb()").split(",")[:3]) / 3


def test_the_page_is_dark_or_light(page: Page) -> None:
    """It follows the system, and a button changes it; the words of figures follow."""
    page.emulate_media(color_scheme="light")
    assert _luminance(page) > 200
    page.emulate_media(color_scheme="dark")
    assert _luminance(page) < 60
    fill = page.evaluate("getComputedStyle(document.querySelector('#standing svg text')).fill")
    assert sum(float(n) for n in fill.strip("rgb()").split(",")[:3]) / 3 > 200
    page.click("#theme")
    assert _luminance(page) > 200
    page.click("#theme")
    assert _luminance(page) < 60


_MOST_SECONDS = 1.0
# How long a click or a key takes until the next frame is drawn, in milliseconds.
_ANSWER = """
(what) => new Promise((done) => {
  const begin = performance.now();
  what.hash ? (location.hash = what.hash) : null;
  if (what.query !== undefined) {
    const query = document.getElementById("query");
    query.value = what.query;
    query.dispatchEvent(new Event("input"));
  }
  setTimeout(() => requestAnimationFrame(() => done(performance.now() - begin)), 0);
})
"""


@pytest.mark.slow
def test_80_000_rows_do_not_freeze_the_page(tmp_path: Path, page: Page) -> None:
    """Search, scrolling and the page of a sample answer in at most 1 s; so does a trace."""
    root = reported_root(tmp_path, 80_000, num_versions=10, num_words=40)
    ids = [sample_id(sample) for sample in conversations(80_000, 40)[40_000:40_003]]
    before = time.process_time()
    assert len(trace_sample(root, ids[0]).fates) == 10
    assert time.process_time() - before <= _MOST_SECONDS
    browser = page.context.browser
    assert browser is not None
    with browser.new_page() as large:
        _open(large, write_report(root, "sft").page)
        _count(large, "80,000 of 80,000 rows")
        assert large.locator("#list a").count() < 60
        large.evaluate(_ANSWER, {"query": "the first search makes what is searched"})
        words = ("word77 word", "tell me 4321.", "source 3", "")
        _quick(large, *({"query": word} for word in words))
        _quick(large, *({"hash": f"#sample={id_}"} for id_ in ids))
        expect(large.locator("#sample tr")).to_have_count(10)
        large.evaluate("document.getElementById('list').scrollTop = 1e9")
        expect(large.locator("#list a").last).to_contain_text(_last_of(80_000, 40)[:10])


def _last_of(num: int, num_words: int) -> str:
    return sample_id(conversations(num, num_words)[-1])


def _quick(page: Page, *asked: dict[str, str]) -> None:
    """Check what the quickest answer of each takes: other programs may keep one waiting."""
    for what in asked:
        took = min(page.evaluate(_ANSWER, what) for _ in range(3)) / 1000
        assert took <= _MOST_SECONDS, (what, took)
