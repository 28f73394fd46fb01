"""The order of KTO's rows: shuffled, and both labels in every batch window."""

import random
from collections.abc import Sequence


def interleave(desirable: Sequence[bool], window: int, seed: int) -> list[int]:
    """Return an order of the rows in which every window of consecutive rows has both labels.

    The trainer takes rows in the order given and estimates its KL term inside windows of the
    per-device batch. Each window gets its share of both labels; inside a window, and over all
    windows, rows of one label come in random order, so that the two answers to a prompt seldom
    meet. A last window of a single row is left out, for it has no other answer to compare with.

    Args:
        desirable: the label of each row.
        window: rows that one device takes at once, 2 or more.
        seed: of the shuffling.

    Returns:
        Positions of rows, each at most once.

    Raises:
        ValueError: one label is too rare to be in every window, or the window is below 2.
    """
    if window < 2:
        raise ValueError(f"per_device_batch_size: KTO needs 2 or more rows at once; got {window}")
    rng = random.Random(seed)
    by_label = {
        label: [place for place, has in enumerate(desirable) if has == label]
        for label in (True, False)
    }
    for places in by_label.values():
        rng.shuffle(places)
    if len(desirable) % window == 1:
        max(by_label.values(), key=len).pop()
    num_windows = -(-sum(map(len, by_label.values())) // window)
    rarer = min(map(len, by_label.values()))
    if rarer < num_windows or num_windows == 0:
        raise ValueError(
            f"preference rows: {rarer} rows have the rarer label, but {num_windows} batches need "
            "one each. Select more pairs, or raise per_device_batch_size"
        )
    order: list[int] = []
    for windows_left in range(num_windows, 0, -1):
        left = {label: len(places) for label, places in by_label.items()}
        size = min(window, sum(left.values()))
        num_desirable = _share(left, size, windows_left)
        chosen = [by_label[True].pop() for _ in range(num_desirable)]
        chosen += [by_label[False].pop() for _ in range(size - num_desirable)]
        rng.shuffle(chosen)
        order += chosen
    return order


def _share(left: dict[bool, int], size: int, windows_left: int) -> int:
    """Return how many desirable rows a window takes, so that all later ones can have both."""
    fair = round(size * left[True] / sum(left.values()))
    most = min(size - 1, left[True] - (windows_left - 1))
    least = max(1, size - (left[False] - (windows_left - 1)))
    return min(max(fair, least), most)
