"""Quotas on the command line."""

import pytest

from zip_pipeline.cli.select import parse_quota
from zip_pipeline.cli.summary import words_of_quotas


@pytest.mark.parametrize(
    ("text", "source", "shares"),
    [
        ("web=0.25", "web", (None, 0.25)),
        ("web=25%", "web", (None, 0.25)),
        ("web=0", "web", (None, 0.0)),
        ("web=0.1:0.5", "web", (0.1, 0.5)),
        ("web=10%:", "web", (0.1, None)),
        ("web=:0.5", "web", (None, 0.5)),
        ("a=b:c=1", "a=b:c", (None, 1.0)),
    ],
)
def test_parse_quota_reads_every_form(
    text: str, source: str, shares: tuple[float | None, float | None]
):
    """SOURCE=MAX and SOURCE=MIN:MAX, as shares or percent; the source may hold = and :."""
    assert parse_quota(text) == (source, shares)


@pytest.mark.parametrize("text", ["web", "=0.5", "web=", "web=:", "web=lots", "", "web=1:2:3"])
def test_parse_quota_refuses_other_forms(text: str):
    """Anything else is an error that shows an example."""
    with pytest.raises(ValueError, match=r"^--quota: got .*for example --quota gsm8k=20%$"):
        parse_quota(text)


def test_summary_says_which_minimum_was_not_reached():
    """A minimum out of reach and a source that nobody has are pointed out."""
    quotas = {
        "a": {"minimum": 5, "maximum": 10, "used": 3},
        "b": {"minimum": 0, "maximum": 4, "used": 4},
        "nosuch": {"minimum": 0, "maximum": 2, "used": 0},
    }
    text = words_of_quotas(quotas, "samples")
    assert text.plain.splitlines() == [
        "a 3 of at most 10 samples, minimum 5 not reached",
        "b 4 of at most 4 samples",
        "nosuch 0 of at most 2 samples, nothing picked: is that its name?",
    ]
    yellow = [text.plain[span.start : span.end] for span in text.spans if span.style == "yellow"]
    assert yellow == ["minimum 5 not reached", "nothing picked: is that its name?"]
