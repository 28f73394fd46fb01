"""Puzzles about words and letters."""

from random import Random

from zip_pipeline.sample_data.task import NOUNS, Maker, Task, listed, make_task, slip


def _shifted(word: str, shift: int) -> str:
    return "".join(chr((ord(letter) - 97 + shift) % 26 + 97) for letter in word)


def _swapped(rng: Random, text: str) -> str:
    """Return the text with one letter changed."""
    place = rng.randrange(len(text))
    return text[:place] + _shifted(text[place], rng.randint(1, 25)) + text[place + 1 :]


def backwards(rng: Random) -> Task:
    """Make a word to be written backwards."""
    word = rng.choice(NOUNS)
    other = rng.choice(NOUNS)
    facts = {"word": word, "spelt": "-".join(word), "other": other, "result": word[::-1]}
    return make_task(
        rng,
        "strings/backwards",
        (
            'Write the word "{word}" backwards.',
            'Reverse the letters of "{word}".',
            'How does "{word}" read from right to left?',
        ),
        (
            '"{word}" is spelt {spelt}. Backwards it reads "{result}".',
            'The letters are {spelt}; from the last to the first they give "{result}".',
        ),
        facts,
        {"result": _swapped(rng, word[::-1])},
    )


def letter_count(rng: Random) -> Task:
    """Make a task about how often a letter occurs in two words."""
    words = rng.sample(NOUNS, 2)
    letter = rng.choice(words[0])
    counts = [word.count(letter) for word in words]
    facts = {
        "first": words[0],
        "second": words[1],
        "letter": letter,
        "in_first": counts[0],
        "in_second": counts[1],
        "result": sum(counts),
    }
    return make_task(
        rng,
        "strings/letter_count",
        (
            'How many times does the letter "{letter}" occur in "{first} {second}"?',
            'Count the letter {letter} in the words "{first}" and "{second}".',
        ),
        (
            '"{first}" has {in_first} and "{second}" has {in_second}, together {result}.',
            'In "{first}": {in_first}. In "{second}": {in_second}. Total for "{letter}": {result}.',
        ),
        facts,
        {"result": slip(rng, sum(counts), 2)},
    )


def alphabetical(rng: Random) -> Task:
    """Make words to be sorted."""
    words = rng.sample(NOUNS, rng.randint(3, 6))
    ordered = sorted(words)
    wrong = list(ordered)
    place = rng.randrange(len(wrong) - 1)
    wrong[place], wrong[place + 1] = wrong[place + 1], wrong[place]
    facts = {"words": listed(words), "first": ordered[0], "result": listed(ordered)}
    return make_task(
        rng,
        "strings/alphabetical",
        (
            "Put these words in alphabetical order: {words}.",
            "Sort from A to Z: {words}",
        ),
        (
            'The first is "{first}". In order: {result}.',
            "In alphabetical order the words are {result}.",
        ),
        facts,
        {"result": listed(wrong), "first": wrong[0]},
    )


def caesar(rng: Random) -> Task:
    """Make a word to be enciphered."""
    word, shift = rng.choice(NOUNS), rng.randint(1, 5)
    coded = _shifted(word, shift)
    facts = {
        "word": word,
        "shift": shift,
        "from": word[0],
        "to": coded[0],
        "result": coded,
    }
    return make_task(
        rng,
        "strings/caesar",
        (
            'Encode "{word}" with a Caesar shift of {shift}.',
            'Move every letter of "{word}" forward by {shift} in the alphabet.',
        ),
        (
            'Each letter moves on by {shift}: {from} becomes {to}, and so on. The code is "'
            '{result}".',
            'Shifting by {shift} turns "{word}" into "{result}".',
        ),
        facts,
        {"result": _shifted(word, shift + 1)},
    )


def no_vowels(rng: Random) -> Task:
    """Make a phrase to be written without its vowels."""
    words = rng.sample(NOUNS, rng.randint(2, 3))
    text = " ".join(words)
    bare = "".join(letter for letter in text if letter not in "aeiou")
    wrong = "".join(letter for letter in text if letter not in "aei")
    facts = {"text": text, "removed": len(text) - len(bare), "result": bare}
    return make_task(
        rng,
        "strings/no_vowels",
        (
            'Remove all vowels from "{text}".',
            'What is left of "{text}" without a, e, i, o and u?',
        ),
        (
            'Taking out {removed} vowels leaves "{result}".',
            'Without its vowels, "{text}" becomes "{result}".',
        ),
        facts,
        {"result": wrong if wrong != bare else f"{bare}e"},
    )


def acronym(rng: Random) -> Task:
    """Make words whose first letters are to be joined."""
    words = [word.capitalize() for word in rng.sample(NOUNS, rng.randint(3, 5))]
    letters = "".join(word[0] for word in words)
    facts = {"name": " ".join(words), "letters": listed(list(letters)), "result": letters}
    return make_task(
        rng,
        "strings/acronym",
        (
            "What is the acronym of {name}?",
            'Form an abbreviation from the first letters of "{name}".',
        ),
        (
            "The first letters are {letters}, so the acronym is {result}.",
            "Take {letters}: {result}.",
        ),
        facts,
        {"result": _swapped(rng, letters.lower()).upper()},
    )


KINDS: tuple[Maker, ...] = (backwards, letter_count, alphabetical, caesar, no_vowels, acronym)
