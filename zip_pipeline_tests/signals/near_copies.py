"""Near-copies of samples, made by rules from a seed: what near-duplicates are told by."""

import random
from collections.abc import Sequence

from zip_pipeline.samples import Sample
from zip_pipeline_tests.signals.measured import talk


def edited(text: str, share: float, rng: random.Random, vocabulary: Sequence[str]) -> str:
    """Return a text of which a share of the words is left out, followed by or made another one."""
    words = []
    for word in text.split(" "):
        kind = rng.choice(("out", "after", "other")) if rng.random() < share else "same"
        words += [word] * (kind in ("same", "after"))
        words += [rng.choice(vocabulary)] * (kind in ("after", "other"))
    return " ".join(words)


def with_other_numbers(text: str) -> str:
    """Return a text in which every word of digits is another one of as many words."""
    return " ".join(str(int(w) + 7) if w.isdecimal() else w for w in text.split(" "))


def invented(rng: random.Random, num_words: int, vocabulary: Sequence[str]) -> str:
    """Return a text of random words, with some numbers."""
    return " ".join(
        str(rng.randrange(1000)) if rng.random() < 0.1 else rng.choice(vocabulary)
        for _ in range(num_words)
    )


def vocabulary(rng: random.Random, size: int = 3000) -> list[str]:
    """Return invented words."""
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(size)]


def samples(rng: random.Random, num: int, words: Sequence[str]) -> list[Sample]:
    """Return conversations of one question and answer, from 20 to 200 words each."""
    return [
        talk(*(invented(rng, rng.randrange(20, 200), words) for _ in range(2))) for _ in range(num)
    ]
