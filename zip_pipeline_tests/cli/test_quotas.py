"""Quotas and mixtures on the command line."""

import polars as pl
import pytest

from zip_pipeline.cli.select import parse_quota, parse_weight
from zip_pipeline.cli.summary import words_of_mixture, words_of_quotas
from zip_pipeline_tests.cli.commands import call_well
from zip_pipeline_tests.cli.pools import sft_records, write_jsonl


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


def test_mixture_on_the_command_line(tmp_path):
    """Sources weigh what was typed, and the summary says how far they are from their shares."""
    pool = write_jsonl(tmp_path / "pool.jsonl", sft_records(100))
    typed = ("--strategy", "random", "--mixture", "equal", "--mixture-weight", "odd=3")
    out = tmp_path / "out.parquet"
    words = call_well("select", pool, "-o", out, "--budget-samples", "20", *typed)
    assert pl.read_parquet(out)["source"].value_counts(sort=True).rows() == [
        ("odd", 15),
        ("even", 5),
    ]
    assert "equal, 2 sources" in words


@pytest.mark.parametrize("text", ["web", "=2", "web=", "web=much"])
def test_parse_weight_refuses_other_forms(text: str):
    """Anything else is an error that shows an example."""
    with pytest.raises(ValueError, match=r"^--mixture-weight: got .*for example maths=2$"):
        parse_weight(text)


def test_summary_says_who_is_far_from_its_share():
    """At most three sources, those that are farthest."""
    used = {"a": 90, "b": 112, "c": 100, "d": 99, "e": 103}
    mixture = {source: {"allotted": 100, "used": number} for source, number in used.items()}
    words = "natural, 5 sources; farthest from their share, in tokens: b +12, a -10, e +3"
    assert words_of_mixture("natural", mixture, "tokens") == words
    even = {"a": {"allotted": 5, "used": 5}}
    assert words_of_mixture("equal", even, "tokens") == "equal, 1 source"
    assert words_of_mixture("equal", even, "tokens", "clusters") == "equal, 1 cluster"
