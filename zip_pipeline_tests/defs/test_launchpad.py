"""Launchpad values, their ranges, and defaults per data root."""

from pathlib import Path

import pytest

from zip_pipeline.defs.launchpad import (
    SelectionTunables,
    default_op_config,
    default_selection,
    stage_defaults,
    tunables,
)
from zip_pipeline.selection.config import SelectionConfig


def _write_defaults(tmp_path: Path, text: str) -> Path:
    (tmp_path / "selection.toml").write_text(text)
    return tmp_path


def test_defaults_without_file_are_zip_with_a_token_budget(tmp_path: Path) -> None:
    """Strategy zip with 200,000 tokens for sft and 100,000 for preference."""
    assert default_selection(tmp_path, "sft") == SelectionConfig(budget_tokens=200_000)
    assert default_selection(tmp_path, "preference") == SelectionConfig(budget_tokens=100_000)


def test_defaults_come_from_the_file(tmp_path: Path) -> None:
    """Every field may be set; a budget in the file replaces the built-in one."""
    root = _write_defaults(
        tmp_path,
        '[sft]\nstrategy = "long_range"\nbudget_samples = 7\ncodec = "zstd"\nlevel = 5\n'
        "k1 = 50\nk2 = 40\nk3 = 30\noverhead_bytes = 9\nseed = 3\n"
        "[sft.quotas.web]\nmax_share = 0.5\n",
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
        quotas={"web": (None, 0.5)},
    )
    assert default_selection(root, "sft") == expected
    assert tunables(root, "sft")().selection() == expected
    assert default_selection(root, "preference") == SelectionConfig(budget_tokens=100_000)


def test_launchpad_offers_every_field_with_a_description(tmp_path: Path) -> None:
    """All tunables of a selection are there and described; the mode for raw files is not."""
    fields = tunables(tmp_path, "sft").model_fields
    expected = set(SelectionConfig.__dataclass_fields__) - {"reference_compat"}
    assert set(fields) == expected
    assert all(len(field.description or "") > 20 for field in fields.values())
    assert fields["budget_tokens"].default == 200_000


def test_op_config_is_complete_and_of_json(tmp_path: Path) -> None:
    """The schedule's configuration leaves nothing to defaults of the time of loading."""
    root = _write_defaults(tmp_path, "[preference]\nbudget_bytes = 5\n")
    assert default_op_config(root, "preference") == {
        "strategy": "zip",
        "budget_samples": None,
        "budget_tokens": None,
        "budget_bytes": 5,
        "k1": 10_000,
        "k2": 200,
        "k3": 100,
        "codec": None,
        "level": None,
        "overhead_bytes": 24,
        "quotas": {},
        "num_shards": 1,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sft]\nk1 = 0\n", "selection.toml: [sft]: 1 validation error"),
        ("[sft]\nkk = 1\n", "selection.toml: [sft] sets kk; allowed are strategy, budget_samples"),
        ("[stf]\nk1 = 1\n", "selection.toml: got stf; allowed are the tables [sft], [preference]"),
        ("sft = 3\n", "selection.toml: got sft; allowed are the tables"),
        ("[sft\n", "selection.toml: not valid TOML in UTF-8"),
        (
            "[sft]\nbudget_samples = 1\nbudget_bytes = 2\n",
            "selection.toml: [sft]: budget: got budget_samples=1 and budget_bytes=2. Exactly one",
        ),
        ("[sft]\nk3 = 300\n", "selection.toml: [sft]: k1, k2, k3: got 10000, 200, 300"),
    ],
)
def test_defaults_file_errors_name_file_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    """A wrong file is refused with its name, what was found and what is allowed."""
    root = _write_defaults(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        stage_defaults(root, "sft")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("k1", 0, "greater than or equal to 1"),
        ("k2", 0, "greater than or equal to 1"),
        ("k3", -1, "greater than or equal to 1"),
        ("budget_tokens", -1, "greater than or equal to 0"),
        ("level", 23, "less than or equal to 22"),
        ("overhead_bytes", -1, "greater than or equal to 0"),
        ("seed", -1, "greater than or equal to 0"),
        ("quotas", {"web": {"max_share": 1.5}}, "less than or equal to 1"),
        ("strategy", "zop", "'zip', 'long_range' or 'random'"),
    ],
)
def test_tunables_refuse_values_outside_their_range(
    field: str, value: object, message: str
) -> None:
    """Each range is checked, and the error names the field and what is allowed."""
    with pytest.raises(ValueError) as caught:
        SelectionTunables(**{field: value})
    assert field in str(caught.value)
    assert message in str(caught.value)


def test_tunables_need_exactly_one_budget() -> None:
    """None or two budgets are refused with the remedy."""
    with pytest.raises(ValueError, match=r"budget: got none\. Exactly one of the three"):
        SelectionTunables().selection()
    two = SelectionTunables(budget_tokens=5, budget_bytes=5)
    with pytest.raises(ValueError, match="budget: got budget_tokens=5 and budget_bytes=5"):
        two.selection()
