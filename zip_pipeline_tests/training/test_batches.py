"""The effective batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zip_pipeline.training.arguments import batch_plan
from zip_pipeline.training.presets import load_preset


@pytest.mark.parametrize("num_devices", [1, 2, 8])
@pytest.mark.parametrize("name", ["mistral-7b", "llama-3-8b"])
@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_effective_batch_of_the_paper_presets_is_128(
    name: str, num_devices: int, stage: str
) -> None:
    """1, 2 and 8 devices make steps of exactly 128 rows, at most 4 of them at once."""
    preset = load_preset(name)
    plan = batch_plan(preset.batch(getattr(preset, stage)), num_devices, 2)
    assert plan.effective == 128
    assert plan.per_device == 4
    assert plan.num_devices * plan.per_device * plan.accumulation == 128


@given(st.integers(2, 64), st.integers(1, 32), st.integers(1, 6), st.integers(1, 2))
def test_batch_plan_is_the_largest_that_fits(
    batch: int, most: int, num_devices: int, least: int
) -> None:
    """The plan equals what trying all sizes finds, and there is an error where none fits."""
    sizes = [s for s in range(least, most + 1) if batch % (s * num_devices) == 0]
    if not sizes:
        with pytest.raises(ValueError, match="cannot be split"):
            batch_plan((batch, most), num_devices, least)
        return
    plan = batch_plan((batch, most), num_devices, least)
    assert (plan.per_device, plan.effective) == (max(sizes), batch)
