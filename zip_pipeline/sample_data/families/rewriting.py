"""Sentences to be rewritten."""

from random import Random

from zip_pipeline.sample_data.task import (
    NAMES,
    NOUNS,
    OBJECTS,
    PERSONS,
    PLACES,
    VERBS,
    Maker,
    Task,
    make_task,
)

_LABELS = ("Sentence: {text}", "{text}", "Text: {text}")


def draw_sentence(rng: Random) -> dict[str, str]:
    """Return the parts of a sentence and its verb forms."""
    base, present, past, participle = rng.choice(VERBS)
    return {
        "person": rng.choice(PERSONS),
        "base": base,
        "present": present,
        "past": past,
        "participle": participle,
        "object": rng.choice(OBJECTS),
        "place": rng.choice(PLACES),
    }


def _context(rng: Random, text: str) -> str:
    return rng.choice(_LABELS).format(text=text)


def past_tense(rng: Random) -> Task:
    """Make a sentence to be put into the past."""
    parts = draw_sentence(rng)
    now = "The {person} {present} the {object} {place}.".format(**parts)
    then = "The {person} {past} the {object} {place}.".format(**parts)
    facts = {**parts, "text": now, "result": then}
    return make_task(
        rng,
        "rewriting/past_tense",
        ("Rewrite the sentence in the past tense.", "Put this into the simple past."),
        ("{result}", 'The past of "{base}" is "{past}": {result}'),
        facts,
        {"past": parts["present"], "result": now},
        context=_context(rng, now),
    )


def passive(rng: Random) -> Task:
    """Make a sentence to be put into the passive."""
    parts = draw_sentence(rng)
    active = "The {person} {past} the {object} {place}.".format(**parts)
    right = "The {object} was {participle} by the {person} {place}.".format(**parts)
    swapped = "The {person} was {participle} by the {object} {place}.".format(**parts)
    return make_task(
        rng,
        "rewriting/passive",
        ("Rewrite the sentence in the passive voice.", "Turn this into a passive sentence."),
        ("{result}", "The {object} becomes the subject: {result}"),
        {**parts, "text": active, "result": right},
        {"result": swapped, "object": parts["person"]},
        context=_context(rng, active),
    )


def as_question(rng: Random) -> Task:
    """Make a sentence to be turned into a question."""
    parts = draw_sentence(rng)
    text = "The {person} {past} the {object} {place}.".format(**parts)
    right = "Did the {person} {base} the {object} {place}?".format(**parts)
    wrong = "Did the {person} {past} the {object} {place}?".format(**parts)
    return make_task(
        rng,
        "rewriting/as_question",
        ("Turn the sentence into a yes/no question.", "Ask whether this is true."),
        ("{result}", 'With "did" the verb goes back to "{base}": {result}'),
        {**parts, "text": text, "result": right},
        {"result": wrong, "base": parts["past"]},
        context=_context(rng, text),
    )


def polite(rng: Random) -> Task:
    """Make a blunt order to be made polite."""
    parts = draw_sentence(rng)
    name = rng.choice(NAMES)
    blunt = "{name}, {base} the {object} {place} now!".format(name=name, **parts)
    right = "Dear {name}, could you please {base} the {object} {place}? Thank you.".format(
        name=name, **parts
    )
    wrong = "{name}, you must {base} the {object} {place} at once!".format(name=name, **parts)
    return make_task(
        rng,
        "rewriting/polite",
        ("Make this message polite.", "Rewrite the note in a friendly and polite tone."),
        ("{result}", "A politer version: {result}"),
        {**parts, "name": name, "text": blunt, "result": right},
        {"result": wrong},
        context=_context(rng, blunt),
    )


def bullets(rng: Random) -> Task:
    """Make a sentence to be turned into a list."""
    name, items = rng.choice(NAMES), rng.sample(NOUNS, rng.randint(3, 5))
    text = f"{name} needs {', '.join(f'the {item}' for item in items[:-1])} and the {items[-1]}."
    right = "\n".join(f"- {item}" for item in items)
    return make_task(
        rng,
        "rewriting/bullets",
        ("Turn the sentence into a bullet list.", "List the things named here, one per line."),
        ("{name} needs:\n{result}", "{result}"),
        {"name": name, "items": items, "text": text, "result": right},
        {"result": "\n".join(f"- {item}" for item in items[1:])},
        context=_context(rng, text),
    )


KINDS: tuple[Maker, ...] = (past_tense, passive, as_question, polite, bullets)
