"""What a drop sensor remembers between two ticks."""

import json
from dataclasses import asdict, dataclass, field

from zip_pipeline.defs.drops import Drops

SECONDS_UNTIL_RETRY = (600.0, 3600.0, 21_600.0)
"""How long after each request a failed drop is asked for again, and so how often."""


@dataclass
class Seen:
    """One drop: what it looked like at the last tick, and what was asked for it.

    ``generation`` counts the requests of this drop, so that a return to an earlier content is
    a request of its own; ``num_retries`` counts those after the first of the content at hand.
    At ``look_again``, in seconds since 1970, it is time to see what came of the last one.
    """

    looks: str
    requested: str | None = None
    generation: int = 0
    num_retries: int = 0
    look_again: float | None = None


@dataclass
class DropCursor:
    """The memory of one sensor; ``warned`` holds the unusable names already reported."""

    seen: dict[str, Seen] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, text: str | None) -> "DropCursor":
        """Return the memory that :meth:`dump` wrote, an empty one where there is none."""
        if not text:
            return cls()
        stored = json.loads(text)
        seen = {batch: Seen(**values) for batch, values in stored["seen"].items()}
        return cls(seen, stored["warned"])

    def dump(self) -> str:
        """Return the memory as JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def look(self, drops: Drops) -> tuple[list[str], list[str]]:
        """Take in what lies in the folder.

        Returns:
            The drops that have looked the same for two ticks in a row and were not asked for
            in this form, and those that changed since the last tick, both in name order.
        """
        for batch in self.seen.keys() - drops.found.keys():
            self.seen[batch].looks = ""
        settled, changing = [], []
        for batch, looks in drops.found.items():
            seen = self.seen.setdefault(batch, Seen(looks=""))
            if looks != seen.looks:
                seen.looks = looks
                if looks != seen.requested:
                    changing.append(batch)
            elif looks != seen.requested:
                settled.append(batch)
        return settled, changing

    def due(self, drops: Drops, now: float) -> list[str]:
        """Return the drops of which it is time to see what came of their requests, sorted."""
        return [
            batch
            for batch, looks in drops.found.items()
            if (seen := self.seen[batch]).requested == looks
            and seen.look_again is not None
            and seen.look_again <= now
        ]

    def request(self, batch: str, now: float) -> str:
        """Record that a drop is asked for as it looks now; return the key of the request."""
        seen = self.seen[batch]
        seen.num_retries = seen.num_retries + 1 if seen.requested == seen.looks else 0
        seen.requested = seen.looks
        seen.generation += 1
        self.wait(batch, now)
        return f"{batch}:{seen.looks}:{seen.generation}"

    def wait(self, batch: str, now: float) -> None:
        """Put off the look at what came of a request, if another try is left."""
        waits = SECONDS_UNTIL_RETRY[self.seen[batch].num_retries :]
        self.seen[batch].look_again = now + waits[0] if waits else None

    def accept(self, batch: str) -> None:
        """Record that a drop needs no further request as it looks now."""
        self.seen[batch].requested = self.seen[batch].looks
        self.seen[batch].look_again = None

    def new_warnings(self, drops: Drops) -> dict[str, str]:
        """Return the unusable names not reported before, with their reasons."""
        new = {n: reason for n, reason in drops.unusable.items() if n not in self.warned}
        self.warned = sorted(drops.unusable)
        return new
