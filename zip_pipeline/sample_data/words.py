"""Puzzles about letters, sentences to be rewritten, and questions about the world."""

# ruff: noqa: SIM905 - a list of words reads better as a line of words

from random import Random

from zip_pipeline.sample_data.task import (
    NAMES,
    NOUNS,
    OBJECTS,
    PERSONS,
    PLACES,
    VERBS,
    Drawn,
    Family,
    listed,
    slip,
)

strings = Family("strings")


def _shifted(word: str, shift: int) -> str:
    return "".join(chr((ord(letter) - 97 + shift) % 26 + 97) for letter in word)


def _swapped(rng: Random, text: str) -> str:
    """Return the text with one letter changed."""
    place = rng.randrange(len(text))
    return text[:place] + _shifted(text[place], rng.randint(1, 25)) + text[place + 1 :]


@strings.kind(
    'Write the word "{word}" backwards.|'
    'Reverse the letters of "{word}".|'
    'How does "{word}" read from right to left?',
    '"{word}" is spelt {spelt}. Backwards it reads "{result}".|'
    'The letters are {spelt}; from the last to the first they give "{result}".',
)
def _backwards(rng: Random) -> Drawn:
    word, other = rng.choice(NOUNS), rng.choice(NOUNS)
    facts = {"word": word, "spelt": "-".join(word), "other": other, "result": word[::-1]}
    return Drawn(facts, {"result": _swapped(rng, word[::-1])})


@strings.kind(
    'How many times does the letter "{letter}" occur in "{first} {second}"?|'
    'Count the letter {letter} in the words "{first}" and "{second}".',
    '"{first}" has {in_first} and "{second}" has {in_second}, together {result}.|'
    'In "{first}": {in_first}. In "{second}": {in_second}. Total for "{letter}": {result}.',
)
def _letter_count(rng: Random) -> Drawn:
    first, second = rng.sample(NOUNS, 2)
    letter = rng.choice(first)
    in_first, in_second = first.count(letter), second.count(letter)
    facts = {
        "first": first,
        "second": second,
        "letter": letter,
        "in_first": in_first,
        "in_second": in_second,
        "result": in_first + in_second,
    }
    return Drawn(facts, {"result": slip(rng, in_first + in_second, 2)})


@strings.kind(
    "Put these words in alphabetical order: {words}.|Sort from A to Z: {words}",
    'The first is "{first}". In order: {result}.|In alphabetical order the words are {result}.',
)
def _alphabetical(rng: Random) -> Drawn:
    words = rng.sample(NOUNS, rng.randint(3, 6))
    ordered = sorted(words)
    wrong = list(ordered)
    place = rng.randrange(len(wrong) - 1)
    wrong[place], wrong[place + 1] = wrong[place + 1], wrong[place]
    facts = {"words": listed(words), "first": ordered[0], "result": listed(ordered)}
    return Drawn(facts, {"result": listed(wrong), "first": wrong[0]})


@strings.kind(
    'Encode "{word}" with a Caesar shift of {shift}.|'
    'Move every letter of "{word}" forward by {shift} in the alphabet.',
    'Each letter moves on by {shift}: {from} becomes {to}, and so on. The code is "{result}".|'
    'Shifting by {shift} turns "{word}" into "{result}".',
)
def _caesar(rng: Random) -> Drawn:
    word, shift = rng.choice(NOUNS), rng.randint(1, 5)
    coded = _shifted(word, shift)
    facts = {"word": word, "shift": shift, "from": word[0], "to": coded[0], "result": coded}
    return Drawn(facts, {"result": _shifted(word, shift + 1)})


@strings.kind(
    'Remove all vowels from "{text}".|What is left of "{text}" without a, e, i, o and u?',
    'Taking out {removed} vowels leaves "{result}".|'
    'Without its vowels, "{text}" becomes "{result}".',
)
def _no_vowels(rng: Random) -> Drawn:
    words = rng.sample(NOUNS, rng.randint(2, 3))
    text = " ".join(words)
    bare = "".join(letter for letter in text if letter not in "aeiou")
    wrong = "".join(letter for letter in text if letter not in "aei")
    facts = {"text": text, "removed": len(text) - len(bare), "result": bare}
    return Drawn(facts, {"result": wrong if wrong != bare else f"{bare}e"})


@strings.kind(
    'What is the acronym of {name}?|Form an abbreviation from the first letters of "{name}".',
    "The first letters are {letters}, so the acronym is {result}.|Take {letters}: {result}.",
)
def _acronym(rng: Random) -> Drawn:
    words = [word.capitalize() for word in rng.sample(NOUNS, rng.randint(3, 5))]
    letters = "".join(word[0] for word in words)
    facts = {"name": " ".join(words), "letters": listed(list(letters)), "result": letters}
    return Drawn(facts, {"result": _swapped(rng, letters.lower()).upper()})


rewriting = Family("rewriting")


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
    return rng.choice(("Sentence: ", "", "Text: ")) + text


@rewriting.kind(
    "Rewrite the sentence in the past tense.|Put this into the simple past.",
    '{result}|The past of "{base}" is "{past}": {result}',
)
def _past_tense(rng: Random) -> Drawn:
    parts = draw_sentence(rng)
    now = "The {person} {present} the {object} {place}.".format(**parts)
    then = "The {person} {past} the {object} {place}.".format(**parts)
    facts = {**parts, "text": now, "result": then}
    return Drawn(facts, {"past": parts["present"], "result": now}, _context(rng, now))


@rewriting.kind(
    "Rewrite the sentence in the passive voice.|Turn this into a passive sentence.",
    "{result}|The {object} becomes the subject: {result}",
)
def _passive(rng: Random) -> Drawn:
    parts = draw_sentence(rng)
    active = "The {person} {past} the {object} {place}.".format(**parts)
    right = "The {object} was {participle} by the {person} {place}.".format(**parts)
    swapped = "The {person} was {participle} by the {object} {place}.".format(**parts)
    return Drawn(
        {**parts, "text": active, "result": right},
        {"result": swapped, "object": parts["person"]},
        _context(rng, active),
    )


@rewriting.kind(
    "Turn the sentence into a yes/no question.|Ask whether this is true.",
    '{result}|With "did" the verb goes back to "{base}": {result}',
)
def _as_question(rng: Random) -> Drawn:
    parts = draw_sentence(rng)
    text = "The {person} {past} the {object} {place}.".format(**parts)
    right = "Did the {person} {base} the {object} {place}?".format(**parts)
    wrong = "Did the {person} {past} the {object} {place}?".format(**parts)
    return Drawn(
        {**parts, "text": text, "result": right},
        {"result": wrong, "base": parts["past"]},
        _context(rng, text),
    )


@rewriting.kind(
    "Make this message polite.|Rewrite the note in a friendly and polite tone.",
    "{result}|A politer version: {result}",
)
def _polite(rng: Random) -> Drawn:
    parts = draw_sentence(rng)
    name = rng.choice(NAMES)
    blunt = "{name}, {base} the {object} {place} now!".format(name=name, **parts)
    right = "Dear {name}, could you please {base} the {object} {place}? Thank you.".format(
        name=name, **parts
    )
    wrong = "{name}, you must {base} the {object} {place} at once!".format(name=name, **parts)
    return Drawn(
        {**parts, "name": name, "text": blunt, "result": right},
        {"result": wrong},
        _context(rng, blunt),
    )


@rewriting.kind(
    "Turn the sentence into a bullet list.|List the things named here, one per line.",
    "{name} needs:\n{result}|{result}",
)
def _bullets(rng: Random) -> Drawn:
    name, items = rng.choice(NAMES), rng.sample(NOUNS, rng.randint(3, 5))
    text = f"{name} needs {', '.join(f'the {item}' for item in items[:-1])} and the {items[-1]}."
    right = "\n".join(f"- {item}" for item in items)
    return Drawn(
        {"name": name, "items": items, "text": text, "result": right},
        {"result": "\n".join(f"- {item}" for item in items[1:])},
        _context(rng, text),
    )


knowledge = Family("knowledge")


# Country, capital, continent, currency.
COUNTRIES = tuple(
    tuple(row.split(","))
    for row in (
        "Argentina,Buenos Aires,South America,peso|Austria,Vienna,Europe,euro|"
        "Bangladesh,Dhaka,Asia,taka|Brazil,Brasilia,South America,real|"
        "Cambodia,Phnom Penh,Asia,riel|Canada,Ottawa,North America,dollar|"
        "Chile,Santiago,South America,peso|China,Beijing,Asia,yuan|"
        "Colombia,Bogota,South America,peso|Croatia,Zagreb,Europe,euro|"
        "Cuba,Havana,North America,peso|Denmark,Copenhagen,Europe,krone|Egypt,Cairo,Africa,pound|"
        "Ethiopia,Addis Ababa,Africa,birr|Finland,Helsinki,Europe,euro|France,Paris,Europe,euro|"
        "Germany,Berlin,Europe,euro|Ghana,Accra,Africa,cedi|Greece,Athens,Europe,euro|"
        "Hungary,Budapest,Europe,forint|Iceland,Reykjavik,Europe,krona|India,New Delhi,Asia,rupee|"
        "Iraq,Baghdad,Asia,dinar|Ireland,Dublin,Europe,euro|Italy,Rome,Europe,euro|"
        "Jamaica,Kingston,North America,dollar|Japan,Tokyo,Asia,yen|Jordan,Amman,Asia,dinar|"
        "Kenya,Nairobi,Africa,shilling|Laos,Vientiane,Asia,kip|Latvia,Riga,Europe,euro|"
        "Malaysia,Kuala Lumpur,Asia,ringgit|Mexico,Mexico City,North America,peso|"
        "Mongolia,Ulaanbaatar,Asia,tugrik|Morocco,Rabat,Africa,dirham|Nepal,Kathmandu,Asia,rupee|"
        "Nigeria,Abuja,Africa,naira|Norway,Oslo,Europe,krone|Pakistan,Islamabad,Asia,rupee|"
        "Peru,Lima,South America,sol|Poland,Warsaw,Europe,zloty|Portugal,Lisbon,Europe,euro|"
        "Romania,Bucharest,Europe,leu|Serbia,Belgrade,Europe,dinar|Spain,Madrid,Europe,euro|"
        "Sweden,Stockholm,Europe,krona|Thailand,Bangkok,Asia,baht|Tunisia,Tunis,Africa,dinar|"
        "Uganda,Kampala,Africa,shilling|Ukraine,Kyiv,Europe,hryvnia|"
        "Uruguay,Montevideo,South America,peso|Vietnam,Hanoi,Asia,dong|Zambia,Lusaka,Africa,kwacha"
    ).split("|")
)
# Element and symbol, in the order of their atomic numbers from 1 on.
ELEMENTS = tuple(
    tuple(pair.split(":"))
    for pair in (
        "hydrogen:H helium:He lithium:Li beryllium:Be boron:B carbon:C nitrogen:N oxygen:O "
        "fluorine:F neon:Ne sodium:Na magnesium:Mg aluminium:Al silicon:Si phosphorus:P sulfur:S "
        "chlorine:Cl argon:Ar potassium:K calcium:Ca scandium:Sc titanium:Ti vanadium:V "
        "chromium:Cr manganese:Mn iron:Fe cobalt:Co nickel:Ni copper:Cu zinc:Zn gallium:Ga "
        "germanium:Ge arsenic:As selenium:Se bromine:Br krypton:Kr"
    ).split()
)


@knowledge.kind(
    "What are the capitals of {first} and {second}?|"
    "Name the capital of {first} and the capital of {second}.|"
    "Which cities are the capitals of {first} and of {second}?",
    "The capital of {first} is {first_city} and that of {second} is {second_city}.|"
    "{first}: {first_city}. {second}: {second_city}.|"
    "{first_city} is the capital of {first}; {second_city} is the capital of {second}.",
)
def _capital(rng: Random) -> Drawn:
    (first, first_city, *_), (second, second_city, *_), (_, other, *_) = rng.sample(COUNTRIES, 3)
    facts = {
        "first": first,
        "second": second,
        "first_city": first_city,
        "second_city": second_city,
        "result": f"{first_city} and {second_city}",
    }
    return Drawn(facts, {"second_city": other, "result": f"{first_city} and {other}"})


@knowledge.kind(
    "Give capital, continent and currency of {name}, and the currency of {other}.|"
    "Tell me about {name}: capital, continent, currency. And how do they pay in {other}?",
    "{name} lies in {continent}. Its capital is {city} and its currency is the {currency}. People "
    "in {other} pay with the {other_currency}.|"
    "Capital: {city}. Continent: {continent}. Currency: {currency}. The currency of {other} is "
    "the {other_currency}.",
)
def _portrait(rng: Random) -> Drawn:
    (name, city, continent, currency), other, (_, wrong_city, *_) = rng.sample(COUNTRIES, 3)
    rest = f"{continent}, {currency}; {other[3]}"
    facts = {
        "name": name,
        "city": city,
        "continent": continent,
        "currency": currency,
        "other": other[0],
        "other_currency": other[3],
        "result": f"{city}, {rest}",
    }
    return Drawn(facts, {"city": wrong_city, "result": f"{wrong_city}, {rest}"})


@knowledge.kind(
    "What are the symbols and atomic numbers of {first} and {second}?|"
    "Give symbol and atomic number for {first} and for {second}.",
    "{first} has the symbol {symbol} and atomic number {number}; {second} has the symbol "
    "{second_symbol} and atomic number {second_number}.|"
    "{first}: {symbol}, number {number}. {second}: {second_symbol}, number {second_number}.",
)
def _element(rng: Random) -> Drawn:
    places = rng.sample(range(len(ELEMENTS)), 3)
    (first, symbol), (second, second_symbol), _ = (ELEMENTS[place] for place in places)
    number, second_number, wrong_number = (place + 1 for place in places)
    facts = {
        "first": first,
        "symbol": symbol,
        "number": number,
        "second": second,
        "second_symbol": second_symbol,
        "second_number": second_number,
        "result": f"{symbol} {number}, {second_symbol} {second_number}",
    }
    wrong = f"{symbol} {wrong_number}, {second_symbol} {second_number}"
    return Drawn(facts, {"number": wrong_number, "result": wrong})
