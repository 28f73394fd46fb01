"""What a selection configuration accepts."""

from pathlib import Path

import pytest

from zip_pipeline.errors import UserError
from zip_pipeline.samples import STAGES
from zip_pipeline.selection.config import SelectionConfig, stage_selection


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "budget: got none; give exactly one of budget_samples"),
        (
            {"budget_samples": 1, "budget_bytes": 2},
            "got budget_samples, budget_bytes; give",
        ),
        ({"budget_samples": 2**63}, "budget_samples: got 9223372036854775808; allowed are whole"),
        (
            {"budget_tokens": -1},
            "budget_tokens: got -1; allowed are whole numbers, 1 to 2\\^63 - 1, or a share of",
        ),
        ({"budget_tokens": 0}, "budget_tokens: got 0; allowed are whole numbers, 1 to"),
        ({"budget_bytes": True}, "budget_bytes: got True; allowed are whole numbers, 1 to"),
        ({"budget_tokens": "0%"}, "budget_tokens: got '0%'; allowed are whole numbers, 1 to"),
        ({"budget_tokens": "101%"}, "budget_tokens: got '101%'; allowed are whole numbers, 1 to"),
        ({"budget_tokens": "many"}, "or a share of the pool such as 20%"),
        ({"budget_samples": 1, "strategy": "best"}, "strategy: got 'best'; allowed are zip, "),
        (
            {"budget_samples": 1, "seed": 2**64},
            "seed: got 18446744073709551616; allowed are whole numbers, 0 to 2\\^63 - 1",
        ),
        ({"budget_samples": 1, "k3": 0}, "k3: got 0; allowed are whole numbers, 1 and up"),
        ({"budget_samples": 1, "k2": 50}, "got 10000, 50, 100; needed is k1 >= k2 >= k3"),
        ({"budget_samples": 1, "codec": "xz"}, "codec: got 'xz'; allowed are deflate, zstd"),
        ({"budget_samples": 1, "level": 12}, "level: got 12; codec 'deflate' allows 1 to 9"),
        (
            {"budget_samples": 1, "quotas": {"a": (0.5, 0.2)}},
            "quotas: of source .a.: got minimum",
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


def test_a_share_of_the_pool_is_a_budget_once_the_pool_is_known() -> None:
    """It is rounded down, exactly; what was asked for stays the configuration."""
    asked = SelectionConfig(budget_tokens="12.5%")
    assert (asked.unit, asked.asked_budget) == ("tokens", "12.5%")
    assert asked.as_dict()["budget_tokens"] == "12.5%"
    assert [asked.of_pool(supply).budget for supply in (0, 7, 8, 1001)] == [0, 0, 1, 125]
    assert SelectionConfig(budget_samples="29 %").of_pool(100).budget == 29
    number = SelectionConfig(budget_tokens=5)
    assert number.of_pool(1000) is number
    assert asked.fingerprint() != asked.of_pool(8).fingerprint()


def test_config_fills_in_codec_and_level_by_strategy() -> None:
    """The default is deflate 9 for zip and zstd 3 for long_range."""
    zip_config = SelectionConfig(strategy="zip", budget_bytes=5)
    assert (zip_config.resolved_codec, zip_config.resolved_level) == ("deflate", 9)
    long_range = SelectionConfig(strategy="long_range", budget_bytes=5)
    assert (long_range.resolved_codec, long_range.resolved_level) == ("zstd", 3)
    assert long_range.as_dict()["level"] == 3
    assert (long_range.unit, long_range.budget) == ("bytes", 5)


def test_config_fingerprint_changes_with_every_choice_that_matters() -> None:
    """Spelling out a default keeps the fingerprint, another value changes it."""
    base = SelectionConfig(strategy="zip", budget_samples=5)
    assert SelectionConfig(
        strategy="zip", budget_samples=5, codec="deflate", level=9
    ).fingerprint() == (base.fingerprint())
    others = [
        SelectionConfig(strategy="zip", budget_samples=6),
        SelectionConfig(strategy="zip", budget_bytes=5),
        SelectionConfig(strategy="zip", budget_samples=5, seed=1),
        SelectionConfig(strategy="zip", budget_samples=5, quotas={"a": (None, 0.5)}),
    ]
    assert len({config.fingerprint() for config in [base, *others]}) == 5


def test_stage_selection_without_a_file_is_the_default_with_a_token_budget(tmp_path: Path) -> None:
    """Strategy coverage with 200,000 tokens for sft and 100,000 for preference."""
    assert stage_selection(tmp_path, "sft") == SelectionConfig(
        strategy="coverage", budget_tokens=200_000
    )
    assert stage_selection(tmp_path, "preference") == SelectionConfig(
        strategy="coverage", budget_tokens=100_000
    )


def test_stage_selection_comes_from_the_file(tmp_path: Path) -> None:
    """Every field may be set; a budget in the file replaces the built-in one."""
    (tmp_path / "zip_pipeline.toml").write_text(
        '[sft]\nstrategy = "long_range"\nbudget_samples = 7\ncodec = "zstd"\nlevel = 5\n'
        "k1 = 50\nk2 = 40\nk3 = 30\noverhead_bytes = 9\nseed = 3\nnum_shards = 2\n"
        "[sft.quotas.web]\nmax_share = 0.5\n"
    )
    expected = SelectionConfig(
        strategy="long_range",
        budget_samples=7,
        codec="zstd",
        level=5,
        k1=50,
        k2=40,
        k3=30,
        overhead_bytes=9,
        seed=3,
        num_shards=2,
        quotas={"web": (None, 0.5)},
    )
    assert stage_selection(tmp_path, "sft") == expected
    changes = {"budget_bytes": 9, "quotas": {}, "k1": 60}
    assert stage_selection(tmp_path, "sft", changes) == expected.model_copy(
        update={**changes, "budget_samples": None}
    )
    assert stage_selection(tmp_path, "preference") == SelectionConfig(
        strategy="coverage", budget_tokens=100_000
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k1 = 0", "[sft] k1: got 0; allowed are whole numbers, 1 and up"),
        ("kk = 1", "[sft] kk: unknown; allowed are strategy, budget_samples"),
        ("budget_samples = 1\nbudget_bytes = 2", "[sft] budget: got budget_samples, budget_bytes;"),
        ("k3 = 300", "[sft] k1, k2, k3: got 10000, 200, 300; needed is k1 >= k2 >= k3"),
        ("quotas = {a = {most = 1}}", "[sft] quotas: a: got most; allowed are min_share and max_"),
        ("reference_compat = true", "[sft] reference_compat: takes raw files, not a pool. Remove"),
    ],
)
def test_wrong_table_of_a_stage_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File, table and key are said, with what is allowed."""
    file = tmp_path / "zip_pipeline.toml"
    file.write_text(f"[sft]\n{text}\n")
    with pytest.raises(ValueError) as caught:
        stage_selection(tmp_path, "sft", {"k1": 500})
    assert str(caught.value).startswith(f"{file}: {message}")


def test_the_mixture_table_holds_for_both_stages_unless_theirs_says_otherwise(
    tmp_path: Path,
) -> None:
    """Its keys are those of the configuration; a wrong one is named with the table."""
    file = tmp_path / "zip_pipeline.toml"
    file.write_text(
        """
        [mixture]
        shares = "natural"
        temperature = 2
        weights = {maths = 2.0}
        quotas = {web = {max_share = 0.3}}
        [preference]
        mixture = "equal"
        """
    )
    sft, pairs = (stage_selection(tmp_path, stage) for stage in STAGES)
    assert (sft.mixture, sft.mixture_temperature, sft.mixture_weights) == (
        "natural",
        2.0,
        {"maths": 2.0},
    )
    assert (pairs.mixture, pairs.mixture_weights) == ("equal", {"maths": 2.0})
    assert sft.quotas == pairs.quotas == {"web": (None, 0.3)}
    file.write_text("[mixture]\nshares = 'even'\n")
    with pytest.raises(UserError, match=r"\[mixture\] shares: got 'even'; allowed are none, nat"):
        stage_selection(tmp_path, "sft")
