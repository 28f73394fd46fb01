"""Small Python functions, with an example that holds."""

from dataclasses import dataclass, replace
from random import Random

from zip_pipeline.sample_data.task import NOUNS, Maker, Task, make_task


@dataclass(frozen=True)
class Recipe:
    """A function to be asked for: ``K`` and ``M`` stand for numbers that are drawn.

    ``body`` works; ``bug`` replaces ``fault`` in it where a wrong answer is wanted.
    """

    name: str
    takes: str
    wants: str
    body: str
    fault: str
    bug: str
    why: str


RECIPES = (
    Recipe(
        "count_above_K",
        "numbers",
        "counts how many numbers are greater than K",
        "return sum(1 for number in numbers if number > K)",
        "> K",
        "< K",
        "The generator yields one for every number above K, and sum adds them up",
    ),
    Recipe(
        "sum_multiples_of_K",
        "numbers",
        "adds up the numbers that are divisible by K",
        "return sum(number for number in numbers if number % K == 0)",
        "== 0",
        "!= 0",
        "A number is divisible by K when the remainder is zero",
    ),
    Recipe(
        "clip_K_M",
        "numbers",
        "limits every number to the range from K to M",
        "return [min(max(number, K), M) for number in numbers]",
        "min(max(number, K), M)",
        "max(number, K)",
        "max lifts what is below K and min lowers what is above M",
    ),
    Recipe(
        "one_in_K",
        "numbers",
        "keeps one number in K, starting with the first",
        "return numbers[::K]",
        "[::K]",
        "[K:]",
        "A slice with step K takes the items 0, K, 2 * K and so on",
    ),
    Recipe(
        "chunks_of_K",
        "numbers",
        "cuts a list into pieces of K items; the last may be shorter",
        "return [numbers[start:start + K] for start in range(0, len(numbers), K)]",
        "start + K",
        "start + K - 1",
        "range jumps ahead by K and each slice takes K items",
    ),
    Recipe(
        "longer_than_K",
        "words",
        "keeps the words that have more than K letters",
        "return [word for word in words if len(word) > K]",
        "> K",
        ">= K + 2",
        "The condition compares the length of each word with K",
    ),
    Recipe(
        "first_K_letters",
        "words",
        "shortens every word to its first K letters",
        "return [word[:K] for word in words]",
        "[:K]",
        "[-K:]",
        "A slice up to K is safe for shorter words, too",
    ),
    Recipe(
        "running_maximum",
        "numbers",
        "returns the largest number so far at each place, never below K",
        "best, result = K, []\nfor number in numbers:\n    best = max(best, number)\n"
        "    result.append(best)\nreturn result",
        "max(best",
        "min(best",
        "best remembers the largest number seen, starting from K",
    ),
    Recipe(
        "count_letters",
        "words",
        "counts the letters of all words that have at least K letters",
        "total = 0\nfor word in words:\n    if len(word) >= K:\n        total += len(word)\n"
        "return total",
        "total += len(word)",
        "total += 1",
        "Words shorter than K are skipped and the others add their length",
    ),
    Recipe(
        "scaled_by_K",
        "numbers",
        "multiplies every number by K and adds M",
        "return [number * K + M for number in numbers]",
        "* K + M",
        "* M + K",
        "The comprehension applies the same rule to each number",
    ),
    Recipe(
        "pairs_with_sum_K",
        "numbers",
        "counts the pairs of places whose numbers add up to K",
        "found = 0\nfor place, left in enumerate(numbers):\n"
        "    found += sum(left + right == K for right in numbers[place + 1:])\nreturn found",
        "numbers[place + 1:]",
        "numbers",
        "Each number is compared with those after it only, so no pair counts twice",
    ),
    Recipe(
        "joined_in_groups_of_K",
        "words",
        "joins the words in groups of K with hyphens",
        "groups = [words[start:start + K] for start in range(0, len(words), K)]\n"
        'return ["-".join(group) for group in groups]',
        "words[start:start + K]",
        "words[start:start + 1]",
        "First the words are cut into groups of K, then each group is joined",
    ),
    Recipe(
        "drop_below_K",
        "numbers",
        "drops every number below K and keeps the order",
        "return [number for number in numbers if number >= K]",
        ">= K",
        "<= K",
        "Only numbers of at least K pass the condition",
    ),
    Recipe(
        "remainders_by_M",
        "numbers",
        "returns the remainder of each number divided by M",
        "return [number % M for number in numbers]",
        "% M",
        "// M",
        "The operator % gives what is left after the division",
    ),
    Recipe(
        "steps_larger_than_K",
        "numbers",
        "counts how often two neighbours differ by more than K",
        "pairs = zip(numbers, numbers[1:])\n"
        "return sum(abs(right - left) > K for left, right in pairs)",
        "abs(right - left)",
        "right - left",
        "zip pairs each number with the next one, and the true comparisons are added up",
    ),
    Recipe(
        "largest_K",
        "numbers",
        "returns the K largest numbers, the largest first",
        "return sorted(numbers, reverse=True)[:K]",
        "reverse=True",
        "reverse=False",
        "Sorting from the top puts the wanted numbers in front, where a slice takes them",
    ),
    Recipe(
        "rotated_by_K",
        "words",
        "moves the first K words to the end",
        "shift = K % len(words)\nreturn words[shift:] + words[:shift]",
        "words[shift:] + words[:shift]",
        "words[:shift] + words[shift:]",
        "The modulo makes it safe for lists that are shorter than K",
    ),
    Recipe(
        "shout_from_K_letters",
        "words",
        "writes words of at least K letters in capitals",
        "return [word.upper() if len(word) >= K else word for word in words]",
        ">= K",
        "< K",
        "A conditional expression decides for each word",
    ),
    Recipe(
        "padded_to_M",
        "words",
        "fills each word with dots on the right up to M letters",
        'return [word.ljust(M, ".") for word in words]',
        "ljust",
        "rjust",
        "ljust leaves words alone that are already long enough",
    ),
    Recipe(
        "letters_at_K",
        "words",
        "joins letter number K of all words that are long enough",
        'return "".join(word[K - 1] for word in words if len(word) >= K)',
        "K - 1",
        "0",
        "Python counts from 0, so letter number K has the index K - 1",
    ),
)


# How a list and its items are called.
_NUMBER_NAMES = (
    ("numbers", "number"),
    ("values", "value"),
    ("scores", "score"),
    ("amounts", "amount"),
    ("xs", "x"),
)
_WORD_NAMES = (("words", "word"), ("names", "name"), ("labels", "label"), ("terms", "term"))
_WANTED = (
    "Write a Python function `{function}({takes})` that {wants}.",
    "I need a function in Python. It is called `{function}`, takes a list `{takes}` and {wants}.",
    "Define `{function}` in Python: given `{takes}`, it {wants}. Add an example.",
    "How would you code this in Python: a function {function} that {wants}?",
    "Python, please: `{function}` gets a list called {takes} and {wants}. Show what it returns.",
)
_GIVEN = (
    "```python\n{code}\n```\n\n{why}.\n\n`{call}` gives `{result}`, `{second}` gives `{other}`.",
    "Here it is:\n\n```python\n{code}\n```\n\nFor instance, `{call}` returns `{result}`. {why}.",
    "{why}:\n```python\n{code}\n```\n>>> {call}\n{result}\n>>> {second}\n{other}",
    "```python\n{code}\n\nprint({call})  # {result}\nprint({second})  # {other}\n```",
)


def run_code(code: str, call: str) -> object:
    """Return what a call gives after the code has been executed."""
    scope: dict[str, object] = {}
    exec(code, scope)
    return eval(call, scope)


def _renamed(rng: Random, recipe: Recipe) -> Recipe:
    """Return the recipe with other names for its list and the items of it."""
    many, one = rng.choice(_WORD_NAMES if recipe.takes == "words" else _NUMBER_NAMES)

    def rename(text: str) -> str:
        return text.replace(recipe.takes, many).replace(recipe.takes[:-1], one)

    code = {name: rename(getattr(recipe, name)) for name in ("takes", "body", "fault", "bug")}
    return replace(recipe, **code)


def _code(recipe: Recipe, body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def {recipe.name}({recipe.takes}):\n{lines}"


def _argument(rng: Random, takes_words: bool) -> str:
    if takes_words:
        return str(rng.sample(NOUNS, rng.randint(3, 6)))
    return str([rng.randint(0, 30) for _ in range(rng.randint(4, 8))])


def function(rng: Random) -> Task:
    """Make a task that asks for a function."""
    original = rng.choice(RECIPES)
    recipe = _renamed(rng, original)
    smaller = rng.randint(2, 6)
    larger = smaller + rng.randint(3, 20)

    def filled(text: str) -> str:
        return text.replace("K", str(smaller)).replace("M", str(larger))

    code = filled(_code(recipe, recipe.body))
    wrong = filled(_code(recipe, recipe.body.replace(recipe.fault, recipe.bug)))
    name = filled(recipe.name)
    call, second = (f"{name}({_argument(rng, original.takes == 'words')})" for _ in range(2))
    facts = {
        "function": name,
        "takes": recipe.takes,
        "wants": filled(recipe.wants),
        "why": filled(recipe.why),
        "code": code,
        "call": call,
        "second": second,
        "result": repr(run_code(code, call)),
        "other": repr(run_code(code, second)),
    }
    changes = {
        "code": wrong,
        "result": repr(run_code(wrong, call)),
        "other": repr(run_code(wrong, second)),
    }
    return make_task(rng, "functions/function", _WANTED, _GIVEN, facts, changes, curt="{code}")


KINDS: tuple[Maker, ...] = (function,)
