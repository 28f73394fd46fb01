"""A program: take the picture of a report that the README shows, as a small PNG.

After ``make run``: ``python -m zip_pipeline_tests.report.picture data/reports/sft/v000005.html
docs/report.png``.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import FloatRect

from zip_pipeline_tests.end_to_end.test_ui import browser_page

_WIDTH, _HEIGHT = 1200, 1000
_MARGIN = 10


def take(page: Path, picture: Path) -> None:
    """Write what a browser shows of a page, down to the end of its figures, in the light theme."""
    with browser_page() as browser:
        browser.emulate_media(color_scheme="light")
        browser.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
        browser.goto(page.resolve().as_uri())
        browser.wait_for_selector("html[data-ready]")
        box = browser.locator("#standing p").first.bounding_box()
        assert box is not None
        height = min(box["y"] + box["height"] + _MARGIN, _HEIGHT)
        clip: FloatRect = {"x": 0, "y": 0, "width": _WIDTH, "height": height}
        shot = Image.open(io.BytesIO(browser.screenshot(clip=clip)))
    # A few colours say the same in a third of the bytes.
    shot.convert("RGB").quantize(64).save(picture, optimize=True)


if __name__ == "__main__":
    take(*map(Path, sys.argv[1:3]))
