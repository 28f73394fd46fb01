"""Quotas on the command line."""

import pytest

from zip_pipeline.cli.select_command import parse_quota


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
