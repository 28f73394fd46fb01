"""One task with its right answer, a wrong one and a curt one: what every family makes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from zip_pipeline.samples import Sample, Turn, sample_id

Facts: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt, its right answer and two worse ones.

    ``facts`` holds what the prompt states and, under ``result``, what the answer must arrive
    at, so that a reader or a test can work it out anew. ``context`` is what the last user turn
    is about (a table, a sentence), kept apart for formats that have a field for it.
    """

    family: str
    kind: str
    prompt: tuple[Turn, ...]
    answer: str
    wrong: str
    curt: str
    facts: Facts
    context: str = ""

    def prompt_turns(self) -> tuple[Turn, ...]:
        """Return the turns before the final answer, the context inside the last user turn."""
        if not self.context:
            return self.prompt
        *earlier, last = self.prompt
        return (*earlier, Turn(last.role, f"{last.content}\n\n{self.context}"))

    def sample(self) -> Sample:
        """Return the task as a conversation that ends with the right answer."""
        return Sample((*self.prompt_turns(), Turn("assistant", self.answer)))


Maker: TypeAlias = Callable[[Random], Task]


def phrase(rng: Random, wordings: Sequence[str], facts: Facts) -> str:
    """Return one of the wordings, filled in."""
    return rng.choice(wordings).format(**facts)


def make_task(
    rng: Random,
    name: str,
    questions: Sequence[str],
    answers: Sequence[str],
    facts: Facts,
    wrong: Facts,
    *,
    context: str = "",
    curt: str = "{result}",
) -> Task:
    """Return a one-question task.

    Args:
        rng: draws the wordings.
        name: ``family/kind``.
        questions: wordings of the question, with ``{fact}`` placeholders.
        answers: wordings of the answer.
        facts: the values of the placeholders, ``result`` among them.
        wrong: the facts that a careless answerer gets wrong, with their wrong values.
        context: text that the question is about.
        curt: wording of the bare answer.
    """
    family, kind = name.split("/")
    answer = rng.choice(answers)
    return Task(
        family=family,
        kind=kind,
        prompt=(Turn("user", phrase(rng, questions, facts)),),
        answer=answer.format(**facts),
        wrong=answer.format(**{**facts, **wrong}),
        curt=curt.format(**facts),
        facts=facts,
        context=context,
    )


def for_pretraining(sample: Sample) -> bool:
    """Return whether a sample belongs to the text for pre-training, not to any pool.

    The content alone decides (a quarter goes to pre-training), so that the two share no sample
    whatever their seeds are.
    """
    digest = hashlib.blake2b(sample_id(sample).encode(), digest_size=1).digest()
    return digest[0] % 4 == 0


def money(cents: int) -> str:
    """Return an amount of cents as units with two decimals."""
    return f"{cents // 100}.{cents % 100:02d}"


def listed(values: Sequence[object]) -> str:
    """Return values separated by commas."""
    return ", ".join(map(str, values))


def slip(rng: Random, value: int, largest: int = 9) -> int:
    """Return a whole number near ``value`` that differs from it and is not negative."""
    step = rng.randint(1, largest)
    return value - step if value > step and rng.random() < 0.5 else value + step
