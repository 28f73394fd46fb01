"""What a selection configuration accepts."""

import pytest

from zip_pipeline.selection.config import SelectionConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "budget: got none; give exactly one of budget_samples"),
        (
            {"budget_samples": 1, "budget_bytes": 2},
            "got budget_samples, budget_bytes; give",
        ),
        ({"budget_tokens": -1}, "budget_tokens: got -1; allowed are 0 and above"),
        ({"budget_samples": 1, "strategy": "best"}, "strategy: got 'best'; allowed are zip, long"),
        ({"budget_samples": 1, "seed": 2**64}, "seed: got 18446744073709551616; allowed are 0 to"),
        ({"budget_samples": 1, "k3": 0}, "k3: got 0; allowed are whole numbers from 1"),
        ({"budget_samples": 1, "k2": 50}, "got 10000, 50, 100; needed is k1 >= k2 >= k3"),
        ({"budget_samples": 1, "codec": "xz"}, "codec: got 'xz'; allowed are deflate, zstd"),
        ({"budget_samples": 1, "level": 12}, "level: got 12; codec 'deflate' allows 1 to 9"),
        (
            {"budget_samples": 1, "quotas": {"a": (0.5, 0.2)}},
            "quota of source .a.: got minimum",
        ),
        ({"budget_samples": 1, "quotas": {"a": (None, 1.2)}}, "maximum 1.2; allowed are shares"),
        (
            {"budget_samples": 1, "quotas": {"a": (0.6, None), "b": (0.6, None)}},
            "quotas: the minimums add up to 1.2 of the budget; allowed is at most 1",
        ),
        ({"budget_tokens": 1, "reference_compat": True}, "knows strategy zip with budget_samples"),
        ({"budget_samples": 1, "reference_compat": True, "level": 6}, "knows deflate at 9 only"),
    ],
)
def test_config_refuses_with_what_is_allowed(fields: dict, message: str) -> None:
    """A wrong field is named with what was received and what is allowed."""
    with pytest.raises(ValueError, match="^" + ".*" + message.replace("(", r"\(")):
        SelectionConfig(**fields)


def test_config_fills_in_codec_and_level_by_strategy() -> None:
    """The default is deflate 9 for zip and zstd 3 for long_range."""
    zip_config = SelectionConfig(budget_bytes=5)
    assert (zip_config.resolved_codec, zip_config.resolved_level) == ("deflate", 9)
    long_range = SelectionConfig(strategy="long_range", budget_bytes=5)
    assert (long_range.resolved_codec, long_range.resolved_level) == ("zstd", 3)
    assert long_range.as_dict()["level"] == 3
    assert (long_range.unit, long_range.budget) == ("bytes", 5)


def test_config_fingerprint_changes_with_every_choice_that_matters() -> None:
    """Spelling out a default keeps the fingerprint, another value changes it."""
    base = SelectionConfig(budget_samples=5)
    assert SelectionConfig(budget_samples=5, codec="deflate", level=9).fingerprint() == (
        base.fingerprint()
    )
    others = [
        SelectionConfig(budget_samples=6),
        SelectionConfig(budget_bytes=5),
        SelectionConfig(budget_samples=5, seed=1),
        SelectionConfig(budget_samples=5, quotas={"a": (None, 0.5)}),
    ]
    assert len({config.fingerprint() for config in [base, *others]}) == 5
