"""One task with its right answer, a wrong one and a curt one: what every family makes."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from random import Random
from typing import NamedTuple, TypeAlias

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


class Drawn(NamedTuple):
    """What the wordings of a task are filled with."""

    facts: Facts
    wrong: Facts
    """the facts that a careless answerer gets wrong, with their wrong values"""
    context: str = ""
    before: tuple[Turn, ...] = ()
    """turns in front of the first question"""
    after: tuple[Turn, ...] = ()
    """turns between the last question and the answer"""


Maker: TypeAlias = Callable[[Random], Task]
_Draw: TypeAlias = Callable[[Random], Drawn]


@dataclass(frozen=True)
class Family:
    """Tasks of related kinds, in the order in which they are declared."""

    name: str
    makers: list[Maker] = field(default_factory=list)

    def kind(self, *script: str, curt: str = "{result}") -> Callable[[_Draw], _Draw]:
        """Declare a kind of tasks, named like the function that draws its facts.

        Args:
            script: wordings of each turn with ``{fact}`` placeholders, separated by ``|``; user
                and assistant alternate, and the last turn is the answer.
            curt: wording of the bare answer.
        """

        def declare(draw: _Draw) -> _Draw:
            kind = draw.__name__.removeprefix("_")
            self.makers.append(lambda rng: self._task(rng, kind, script, curt, draw(rng)))
            return draw

        return declare

    def _task(self, rng: Random, kind: str, script: Sequence[str], curt: str, drawn: Drawn) -> Task:
        *earlier, answer = (wordings.split("|") for wordings in script)
        facts, chosen = drawn.facts, rng.choice(answer)
        asked = (rng.choice(wordings).format(**facts) for wordings in earlier)
        turns = map(Turn, cycle(("user", "assistant")), asked)
        return Task(
            family=self.name,
            kind=kind,
            prompt=(*drawn.before, *turns, *drawn.after),
            answer=chosen.format(**facts),
            wrong=chosen.format(**{**facts, **drawn.wrong}),
            curt=curt.format(**facts),
            facts=facts,
            context=drawn.context,
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


# ruff: noqa: SIM905 - a list of words reads better as a line of words

NAMES = (
    "Amara Ben Chloe Dmitri Elena Farid Grace Hiro Ingrid Jamal Keiko Liam Mei Nadia Omar Priya "
    "Quentin Rosa Samuel Tara Uma Viktor Wanda Xavier Yusuf Zoe Anton Bianca Carlos Dalia Emil "
    "Freya Goran Hana Ines Jonas Karim Lena Marco Noor"
).split()
GOODS = (
    "notebooks pencils apples oranges mugs candles stamps bagels scarves batteries lanterns "
    "cushions bowls posters brushes lamps baskets ropes keyrings sandwiches muffins postcards "
    "folders markers towels plates bottles gloves magnets puzzles"
).split()
CITIES = (
    "Alton Brookfield Carrick Dunmore Eastport Farley Glenwood Harwick Iverton Jarrow Kelso "
    "Langley Marston Norwell Oakham Penrith Quorn Redford Selby Thornton Upwell Varley Whitby Yarm"
).split()
NOUNS = (
    "garden river window ladder basket candle forest market bridge cotton dragon engine feather "
    "guitar hammer island jacket kettle lemon mirror needle orange pepper quartz ribbon saddle "
    "teapot umbrella violin walnut yellow zipper anchor blanket compass diamond elephant falcon "
    "granite harbour icicle journal kitchen lantern meadow notebook oyster parsley rabbit "
    "sandal tunnel uncle valley wagon balloon cabinet desert estate figure gravel helmet insect "
    "jungle kernel lizard marble napkin object pencil quiver rocket silver turtle velvet winter "
    "planet button canvas donkey embers fabric glacier hollow ivory jasmine"
).split()
INGREDIENTS = "flour sugar butter oats rice lentils almonds cocoa raisins barley couscous".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
EVENTS = (
    "workshop|dentist's appointment|team meeting|book club|delivery|concert|training day|"
    "site visit|parents' evening|interview|rehearsal"
).split("|")
# Base form, third person, past, past participle of verbs that take an object.
VERBS = [
    tuple(forms.split())
    for forms in (
        "carry carries carried carried|write writes wrote written|repair repairs repaired repaired|"
        "bring brings brought brought|check checks checked checked|choose chooses chose chosen|"
        "clean cleans cleaned cleaned|draw draws drew drawn|find finds found found|"
        "hide hides hid hidden|order orders ordered ordered|pack packs packed packed|"
        "paint paints painted painted|sell sells sold sold|send sends sent sent|"
        "take takes took taken"
    ).split("|")
]
OBJECTS = (
    "report letter parcel bicycle ticket window invoice poster machine basket photograph cupboard "
    "suitcase contract painting radio"
).split()
PERSONS = (
    "gardener teacher driver nurse cook clerk pilot tailor baker librarian plumber singer farmer "
    "editor guard waiter"
).split()
PLACES = (
    "in the kitchen|at the station|in the office|near the harbour|at the market|in the workshop|"
    "behind the school|at the library|in the garden|on the second floor"
).split("|")
