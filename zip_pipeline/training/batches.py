"""How many rows a device takes at once, so that the effective batch is exactly as set."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """One optimizer step: ``num_devices * per_device * accumulation`` rows."""

    num_devices: int
    per_device: int
    accumulation: int

    @property
    def effective(self) -> int:
        """Return the rows of one optimizer step."""
        return self.num_devices * self.per_device * self.accumulation

    def as_json(self) -> dict[str, int]:
        """Return the plan by name, the effective batch too."""
        return asdict(self) | {"effective": self.effective}


def batch_plan(batch: tuple[int, int], num_devices: int, least_per_device: int = 1) -> BatchPlan:
    """Return the plan with the largest per-device batch that gives exactly the effective batch.

    Args:
        batch: rows of an optimizer step over all devices, and the most that one takes at once.
        num_devices: devices that train together.
        least_per_device: fewest; KTO's KL term needs 2.

    Raises:
        ValueError: no per-device batch within the limits divides the batch.
    """
    batch_size, most_per_device = batch
    share, rest = divmod(batch_size, num_devices)
    for per_device in range(min(most_per_device, share), least_per_device - 1, -1):
        if rest == 0 and share % per_device == 0:
            accumulation = share // per_device
            return BatchPlan(
                num_devices=num_devices, per_device=per_device, accumulation=accumulation
            )
    raise ValueError(
        f"batch_size: {batch_size} rows on {num_devices} devices cannot be split into equal "
        f"batches of {least_per_device} to {most_per_device} per device. Choose a batch_size that "
        "the number of devices divides, or another per_device_batch_size"
    )
