"""Questions about lists and tables, and functions to be written in Python."""

import re
from itertools import accumulate
from random import Random
from typing import TypeAlias

from zip_pipeline.sample_data.task import CITIES, GOODS, NAMES, NOUNS, Drawn, Family, listed, slip

lists = Family("lists")


def _numbers(rng: Random, low: int = 5, high: int = 8) -> list[int]:
    return [rng.randint(1, 99) for _ in range(rng.randint(low, high))]


def _altered(rng: Random, values: list[int]) -> list[int]:
    """Return the numbers with one of them changed."""
    place = rng.randrange(len(values))
    return [*values[:place], slip(rng, values[place]), *values[place + 1 :]]


@lists.kind(
    "Sort {values} {way}.|Arrange the numbers {values} {way}.",
    "{way}, the list starts with {first} and ends with {last}: {result}|Sorted {way}: {result}",
)
def _ordered(rng: Random) -> Drawn:
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
    return Drawn(facts, {"result": _altered(rng, right)})


@lists.kind(
    "What is the second largest number in {values}?|Find the runner-up in {values}.",
    "The largest is {top}. The largest of the others is {result}.|"
    "Only {top} is larger than {result}, so the second largest is {result}.",
)
def _runner_up(rng: Random) -> Drawn:
    values = rng.sample(range(1, 100), rng.randint(5, 9))
    top, second, third = sorted(values, reverse=True)[:3]
    facts = {"values": values, "top": top, "result": second}
    return Drawn(facts, {"result": third})


@lists.kind(
    "Remove the repeats from {values}, keeping the first of each.|"
    "List each item of {values} once, in order of first appearance.",
    "{removed} items repeat an earlier one. What is left: {result}|"
    "Keeping only first appearances gives {result}.",
)
def _without_repeats(rng: Random) -> Drawn:
    words = rng.sample(NOUNS, rng.randint(3, 5))
    values = words + rng.choices(words, k=rng.randint(1, 3))
    rng.shuffle(values)
    right = list(dict.fromkeys(values))
    facts = {"values": values, "removed": len(values) - len(right), "result": right}
    return Drawn(facts, {"result": right[:-1]})


@lists.kind(
    "Which numbers are in both {left} and {right}?|"
    "Find the common elements of {left} and {right}, in the order of the first list.",
    "Going through the first list, {count} of its numbers are also in the second: {result}|"
    "Both lists contain {result}.",
)
def _common(rng: Random) -> Drawn:
    shared = rng.sample(range(1, 60), rng.randint(1, 3))
    left = shared + rng.sample(range(60, 80), rng.randint(2, 4))
    right = shared + rng.sample(range(80, 100), rng.randint(2, 4))
    rng.shuffle(left)
    rng.shuffle(right)
    both = [value for value in left if value in right]
    facts = {"left": left, "right": right, "count": len(both), "result": both}
    return Drawn(facts, {"result": [*both, left[0] if left[0] not in both else right[-1] + 1]})


@lists.kind(
    "Give the running totals of {values}.|What are the cumulative sums of {values}?",
    "Add each number to the sum so far: {result}|"
    "The running totals are {result}; the last one, {total}, is the whole sum.",
)
def _running_totals(rng: Random) -> Drawn:
    values = _numbers(rng, 4, 6)
    right = list(accumulate(values))
    facts = {"values": values, "total": right[-1], "result": right}
    return Drawn(facts, {"result": _altered(rng, right)})


@lists.kind(
    "Rotate {values} to the left by {steps}.|Move the first {steps} items of {values} to the end.",
    "{moved} goes to the end: {result}|"
    "After moving {steps} from the front to the back the list is {result}.",
)
def _rotated(rng: Random) -> Drawn:
    values = rng.sample(NOUNS, rng.randint(4, 6))
    steps = rng.randint(1, len(values) - 2)
    right = values[steps:] + values[:steps]
    facts = {"values": values, "steps": steps, "moved": values[:steps], "result": right}
    return Drawn(facts, {"result": values[steps + 1 :] + values[: steps + 1]})


tables = Family("tables")


_SUBJECTS = (
    ("town", "visitors", CITIES),
    ("product", "sold", GOODS),
    ("player", "points", NAMES),
    ("employee", "hours", NAMES),
)


_Rows: TypeAlias = list[tuple[str, int, int]]


def _table(rng: Random) -> tuple[dict[str, object], _Rows, str]:
    """Return the two column words and the rows as facts, the rows, and the table as text."""
    label, measure, words = rng.choice(_SUBJECTS)
    rows = [
        (word, rng.randint(3, 99), rng.randint(3, 99))
        for word in rng.sample(words, rng.randint(3, 6))
    ]
    header = (label, f"{measure} in May", f"{measure} in June")
    if rng.random() < 0.5:
        lines = [f"| {' | '.join(header)} |", "| --- | --- | --- |"]
        lines += [f"| {name} | {may} | {june} |" for name, may, june in rows]
    else:
        lines = [",".join(header), *(f"{name},{may},{june}" for name, may, june in rows)]
    return {"label": label, "measure": measure, "rows": rows}, rows, "\n".join(lines)


@tables.kind(
    "What is the total of {measure} in {month} over all rows of the table?|"
    "Add up the column {measure} in {month}.",
    "{added} = {result}. The total of {measure} in {month} is {result}.|"
    "The column for {month} sums to {added} = {result}.",
)
def _total(rng: Random) -> Drawn:
    parts, rows, table = _table(rng)
    month = rng.choice(("May", "June"))
    values = [may if month == "May" else june for _, may, june in rows]
    facts = {
        **parts,
        "month": month,
        "added": " + ".join(map(str, values)),
        "result": sum(values),
    }
    return Drawn(facts, {"result": slip(rng, sum(values), 20)}, table)


@tables.kind(
    "By how much did the {measure} of {name} change from May to June?|"
    "Compare May and June for the {label} {name}.",
    "{name} had {may} in May and {june} in June, so the value {way} by {higher} - {lower} = "
    "{result}.|"
    "May: {may}, June: {june}. For {name} the value {way} by {result}.",
)
def _rise(rng: Random) -> Drawn:
    parts, rows, table = _table(rng)
    name, may, june = rng.choice(rows)
    facts = {
        **parts,
        "name": name,
        "may": may,
        "june": june,
        "way": "rose" if june >= may else "fell",
        "higher": max(may, june),
        "lower": min(may, june),
        "result": abs(june - may),
    }
    return Drawn(facts, {"result": slip(rng, abs(june - may), 9)}, table)


@tables.kind(
    "Which {label} has the most {measure} in the two months together?|"
    "Add May and June for each {label}. Who or what comes first?",
    "The sums are {sums}. The highest is {most}: {result}.|"
    "May plus June gives {sums}, so {result} comes first with {most}.",
)
def _highest(rng: Random) -> Drawn:
    is_tied = True
    while is_tied:
        parts, rows, table = _table(rng)
        sums = sorted(((may + june, name) for name, may, june in rows), reverse=True)
        is_tied = sums[0][0] == sums[1][0]
    facts = {
        **parts,
        "sums": listed([f"{name} {value}" for value, name in sums]),
        "most": sums[0][0],
        "result": sums[0][1],
    }
    return Drawn(facts, {"result": sums[1][1]}, table)


@tables.kind(
    "Which rows have more than {limit} {measure} in June?|"
    "List each {label} with over {limit} {measure} in June.",
    "{count} of them: {result}.|More than {limit} in June: {result}.",
)
def _above(rng: Random) -> Drawn:
    parts, rows, table = _table(rng)
    limit = rng.choice(rows)[2] - 1
    names = [name for name, _, june in rows if june > limit]
    others = [name for name, _, june in rows if june <= limit]
    facts = {**parts, "limit": limit, "count": len(names), "result": listed(names)}
    wrong = {"result": listed(others or names[1:] or ["none"]), "count": len(others)}
    return Drawn(facts, wrong, table)


functions = Family("functions")
# Name, list and what is wanted; why it works; the body. K and M stand for numbers that are drawn,
# and of {right|wrong} a wrong answer has the second.
_RECIPES = """count_above_K(numbers) counts how many numbers are greater than K
The generator yields one for every number above K, and sum adds them up
    return sum(1 for number in numbers if number {> K|< K})

sum_multiples_of_K(numbers) adds up the numbers that are divisible by K
A number is divisible by K when the remainder is zero
    return sum(number for number in numbers if number % K {== 0|!= 0})

clip_K_M(numbers) limits every number to the range from K to M
max lifts what is below K and min lowers what is above M
    return [{min(max(number, K), M)|max(number, K)} for number in numbers]

one_in_K(numbers) keeps one number in K, starting with the first
A slice with step K takes the items 0, K, 2 * K and so on
    return numbers{[::K]|[K:]}

chunks_of_K(numbers) cuts a list into pieces of K items; the last may be shorter
range jumps ahead by K and each slice takes K items
    return [numbers[start:{start + K|start + K - 1}] for start in range(0, len(numbers), K)]

longer_than_K(words) keeps the words that have more than K letters
The condition compares the length of each word with K
    return [word for word in words if len(word) {> K|>= K + 2}]

first_K_letters(words) shortens every word to its first K letters
A slice up to K is safe for shorter words, too
    return [word{[:K]|[-K:]} for word in words]

running_maximum(numbers) returns the largest number so far at each place, never below K
best remembers the largest number seen, starting from K
    best, result = K, []
    for number in numbers:
        best = {max(best|min(best}, number)
        result.append(best)
    return result

count_letters(words) counts the letters of all words that have at least K letters
Words shorter than K are skipped and the others add their length
    total = 0
    for word in words:
        if len(word) >= K:
            {total += len(word)|total += 1}
    return total

scaled_by_K(numbers) multiplies every number by K and adds M
The comprehension applies the same rule to each number
    return [number {* K + M|* M + K} for number in numbers]

pairs_with_sum_K(numbers) counts the pairs of places whose numbers add up to K
Each number is compared with those after it only, so no pair counts twice
    found = 0
    for place, left in enumerate(numbers):
        found += sum(left + right == K for right in {numbers[place + 1:]|numbers})
    return found

joined_in_groups_of_K(words) joins the words in groups of K with hyphens
First the words are cut into groups of K, then each group is joined
    groups = [{words[start:start + K]|words[start:start + 1]} for start in range(0, len(words), K)]
    return ["-".join(group) for group in groups]

drop_below_K(numbers) drops every number below K and keeps the order
Only numbers of at least K pass the condition
    return [number for number in numbers if number {>= K|<= K}]

remainders_by_M(numbers) returns the remainder of each number divided by M
The operator % gives what is left after the division
    return [number {% M|// M} for number in numbers]

steps_larger_than_K(numbers) counts how often two neighbours differ by more than K
zip pairs each number with the next one, and the true comparisons are added up
    pairs = zip(numbers, numbers[1:])
    return sum({abs(right - left)|right - left} > K for left, right in pairs)

largest_K(numbers) returns the K largest numbers, the largest first
Sorting from the top puts the wanted numbers in front, where a slice takes them
    return sorted(numbers, {reverse=True|reverse=False})[:K]

rotated_by_K(words) moves the first K words to the end
The modulo makes it safe for lists that are shorter than K
    shift = K % len(words)
    return {words[shift:] + words[:shift]|words[:shift] + words[shift:]}

shout_from_K_letters(words) writes words of at least K letters in capitals
A conditional expression decides for each word
    return [word.upper() if len(word) {>= K|< K} else word for word in words]

padded_to_M(words) fills each word with dots on the right up to M letters
ljust leaves words alone that are already long enough
    return [word.{ljust|rjust}(M, ".") for word in words]

letters_at_K(words) joins letter number K of all words that are long enough
Python counts from 0, so letter number K has the index K - 1
    return "".join(word[{K - 1|0}] for word in words if len(word) >= K)"""


# How a list and its items are called.
_CALLED = {
    "numbers": "numbers number|values value|scores score|amounts amount|xs x",
    "words": "words word|names name|labels label|terms term",
}


def run_code(code: str, call: str) -> object:
    """Return what a call gives after the code has been executed."""
    scope: dict[str, object] = {}
    exec(code, scope)
    return eval(call, scope)


def _argument(rng: Random, takes: str) -> str:
    if takes == "words":
        return str(rng.sample(NOUNS, rng.randint(3, 6)))
    return str([rng.randint(0, 30) for _ in range(rng.randint(4, 8))])


@functions.kind(
    "Write a Python function `{function}({takes})` that {wants}.|"
    "I need a function in Python. It is called `{function}`, takes a list `{takes}` and {wants}.|"
    "Define `{function}` in Python: given `{takes}`, it {wants}. Add an example.|"
    "How would you code this in Python: a function {function} that {wants}?|"
    "Python, please: `{function}` gets a list called {takes} and {wants}. Show what it returns.",
    "```python\n{code}\n```\n\n{why}.\n\n`{call}` gives `{result}`, `{second}` gives `{other}`.|"
    "Here it is:\n\n```python\n{code}\n```\n\nFor instance, `{call}` returns `{result}`. {why}.|"
    "{why}:\n```python\n{code}\n```\n>>> {call}\n{result}\n>>> {second}\n{other}|"
    "```python\n{code}\n\nprint({call})  # {result}\nprint({second})  # {other}\n```",
    curt="{code}",
)
def _function(rng: Random) -> Drawn:
    head, why, body = rng.choice(_RECIPES.split("\n\n")).split("\n", 2)
    signature, wants = head.split(" ", 1)
    name, takes = signature[:-1].split("(")
    many, one = rng.choice(_CALLED[takes].split("|")).split()
    body = body.replace(takes, many).replace(takes[:-1], one)
    smaller = rng.randint(2, 6)
    larger = smaller + rng.randint(3, 20)

    def filled(text: str) -> str:
        return text.replace("K", str(smaller)).replace("M", str(larger))

    name, code = filled(name), filled(f"def {name}({many}):\n{body}")
    call, second = (f"{name}({_argument(rng, takes)})" for _ in range(2))

    def shown(answer: str) -> dict[str, str]:
        chosen = re.sub(r"\{(.*?)\|(.*?)\}", answer, code)
        results = {"result": run_code(chosen, call), "other": run_code(chosen, second)}
        return {"code": chosen, **{key: repr(value) for key, value in results.items()}}

    words = {"function": name, "takes": many, "wants": filled(wants), "why": filled(why)}
    return Drawn({**words, "call": call, "second": second, **shown(r"\1")}, shown(r"\2"))
