"""Draws tasks from the families: for a pool, or for pre-training on other text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from random import Random

from zip_pipeline.sample_data.dialogues import follow_ups, tool_use
from zip_pipeline.sample_data.numbers import arithmetic, dates, units
from zip_pipeline.sample_data.structured import functions, lists, tables
from zip_pipeline.sample_data.task import Maker, Task, for_pretraining
from zip_pipeline.sample_data.words import knowledge, rewriting, strings
from zip_pipeline.samples import Sample, Turn, contents

# The order is part of what a seed gives.
_FAMILIES = (
    arithmetic,
    dates,
    units,
    strings,
    lists,
    functions,
    knowledge,
    tables,
    rewriting,
    follow_ups,
    tool_use,
)
FAMILIES: Mapping[str, Sequence[Maker]] = {family.name: family.makers for family in _FAMILIES}
_OPENERS = ("Hi! ", "Hello, ", "Please help: ", "Quick question: ", "One more: ", "For my class: ")
_CLOSERS = (" Thanks!", " Thank you.", " Explain briefly.", " Please.", " It is urgent.")
_SYSTEMS = (
    "You are a helpful assistant.",
    "You are a patient tutor. Show how you get to the answer.",
    "Answer correctly and briefly.",
    "You help the staff of a small company with everyday questions.",
)


def restyled(rng: Random, task: Task) -> Task:
    """Return the task with a word of greeting or thanks in its first question."""
    place = next(i for i, turn in enumerate(task.prompt) if turn.role == "user")
    question = task.prompt[place].content
    if rng.random() < 0.5:
        question = rng.choice(_OPENERS) + question
    else:
        question += rng.choice(_CLOSERS)
    turns = list(task.prompt)
    turns[place] = Turn("user", question)
    return replace(task, prompt=tuple(turns))


def with_system(rng: Random, task: Task) -> Task:
    """Return the task with a system turn in front, where it has none."""
    if task.prompt[0].role == "system":
        return task
    return replace(task, prompt=(Turn("system", rng.choice(_SYSTEMS)), *task.prompt))


def draw_tasks(
    rng: Random, weights: Mapping[str, int], *, pretraining: bool = False, system_share: float = 0.0
) -> Iterator[Task]:
    """Yield tasks without end.

    Args:
        rng: draws everything.
        weights: how often each family comes, relative to the others.
        pretraining: yield tasks of the pre-training text instead of tasks of a pool.
        system_share: share of the tasks that get a system turn.
    """
    families, shares = list(weights), list(weights.values())
    while True:
        makers = FAMILIES[rng.choices(families, shares)[0]]
        task = rng.choice(makers)(rng)
        if rng.random() < 0.2:
            task = restyled(rng, task)
        if rng.random() < system_share:
            task = with_system(rng, task)
        if for_pretraining(task.sample()) == pretraining:
            yield task


def far_copies(rng: Random, tasks: Sequence[Task], count: int) -> list[Task]:
    """Return near-copies of some tasks, none of which is a sample of the pre-training text."""
    copies = (restyled(rng, rng.choice(tasks)) for _ in iter(int, 1))
    return list(islice((task for task in copies if not for_pretraining(task.sample())), count))


def pretraining_samples(seed: int = 0, num_samples: int = 20_000) -> Iterator[Sample]:
    """Yield samples of the same families as the pools, of which no pool of any seed has one."""
    rng = Random(f"pretraining {seed}")
    tasks = draw_tasks(rng, dict.fromkeys(FAMILIES, 1), pretraining=True, system_share=0.1)
    return (task.sample() for task in islice(tasks, num_samples))


def pretraining_text(seed: int = 0, num_samples: int = 20_000) -> Iterator[str]:
    """Yield the contents of :func:`pretraining_samples`, one text per conversation."""
    return map(contents, pretraining_samples(seed, num_samples))
