"""Puzzles about lists of numbers and words."""

from itertools import accumulate
from random import Random

from zip_pipeline.sample_data.task import NOUNS, Maker, Task, make_task, slip


def _numbers(rng: Random, low: int = 5, high: int = 8) -> list[int]:
    return [rng.randint(1, 99) for _ in range(rng.randint(low, high))]


def _altered(rng: Random, values: list[int]) -> list[int]:
    """Return the numbers with one of them changed."""
    place = rng.randrange(len(values))
    return [*values[:place], slip(rng, values[place]), *values[place + 1 :]]


def ordered(rng: Random) -> Task:
    """Make a list to be sorted."""
    values = _numbers(rng)
    falling = rng.random() < 0.4
    right = sorted(values, reverse=falling)
    facts = {
        "values": values,
        "way": "from largest to smallest" if falling else "from smallest to largest",
        "first": right[0],
        "last": right[-1],
        "result": right,
    }
    return make_task(
        rng,
        "lists/ordered",
        ("Sort {values} {way}.", "Arrange the numbers {values} {way}."),
        (
            "{way}, the list starts with {first} and ends with {last}: {result}",
            "Sorted {way}: {result}",
        ),
        facts,
        {"result": _altered(rng, right)},
    )


def runner_up(rng: Random) -> Task:
    """Make a task about the second largest number."""
    values = rng.sample(range(1, 100), rng.randint(5, 9))
    top, second, third = sorted(values, reverse=True)[:3]
    facts = {"values": values, "top": top, "result": second}
    return make_task(
        rng,
        "lists/runner_up",
        ("What is the second largest number in {values}?", "Find the runner-up in {values}."),
        (
            "The largest is {top}. The largest of the others is {result}.",
            "Only {top} is larger than {result}, so the second largest is {result}.",
        ),
        facts,
        {"result": third},
    )


def without_repeats(rng: Random) -> Task:
    """Make a list from which repeats are to be removed."""
    words = rng.sample(NOUNS, rng.randint(3, 5))
    values = words + rng.choices(words, k=rng.randint(1, 3))
    rng.shuffle(values)
    right = list(dict.fromkeys(values))
    facts = {"values": values, "removed": len(values) - len(right), "result": right}
    return make_task(
        rng,
        "lists/without_repeats",
        (
            "Remove the repeats from {values}, keeping the first of each.",
            "List each item of {values} once, in order of first appearance.",
        ),
        (
            "{removed} items repeat an earlier one. What is left: {result}",
            "Keeping only first appearances gives {result}.",
        ),
        facts,
        {"result": right[:-1]},
    )


def common(rng: Random) -> Task:
    """Make a task about what two lists share."""
    shared = rng.sample(range(1, 60), rng.randint(1, 3))
    left = shared + rng.sample(range(60, 80), rng.randint(2, 4))
    right = shared + rng.sample(range(80, 100), rng.randint(2, 4))
    rng.shuffle(left)
    rng.shuffle(right)
    both = [value for value in left if value in right]
    facts = {"left": left, "right": right, "count": len(both), "result": both}
    return make_task(
        rng,
        "lists/common",
        (
            "Which numbers are in both {left} and {right}?",
            "Find the common elements of {left} and {right}, in the order of the first list.",
        ),
        (
            "Going through the first list, {count} of its numbers are also in the second: {result}",
            "Both lists contain {result}.",
        ),
        facts,
        {"result": [*both, left[0] if left[0] not in both else right[-1] + 1]},
    )


def running_totals(rng: Random) -> Task:
    """Make a task about running totals."""
    values = _numbers(rng, 4, 6)
    right = list(accumulate(values))
    facts = {"values": values, "total": right[-1], "result": right}
    return make_task(
        rng,
        "lists/running_totals",
        ("Give the running totals of {values}.", "What are the cumulative sums of {values}?"),
        (
            "Add each number to the sum so far: {result}",
            "The running totals are {result}; the last one, {total}, is the whole sum.",
        ),
        facts,
        {"result": _altered(rng, right)},
    )


def rotated(rng: Random) -> Task:
    """Make a list to be rotated."""
    values = rng.sample(NOUNS, rng.randint(4, 6))
    steps = rng.randint(1, len(values) - 2)
    right = values[steps:] + values[:steps]
    facts = {"values": values, "steps": steps, "moved": values[:steps], "result": right}
    return make_task(
        rng,
        "lists/rotated",
        (
            "Rotate {values} to the left by {steps}.",
            "Move the first {steps} items of {values} to the end.",
        ),
        (
            "{moved} goes to the end: {result}",
            "After moving {steps} from the front to the back the list is {result}.",
        ),
        facts,
        {"result": values[steps + 1 :] + values[: steps + 1]},
    )


KINDS: tuple[Maker, ...] = (
    ordered,
    runner_up,
    without_repeats,
    common,
    running_totals,
    rotated,
)
