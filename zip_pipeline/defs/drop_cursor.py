"""What a drop sensor remembers between two ticks."""

import json
from dataclasses import asdict, dataclass, field

from zip_pipeline.defs.drops import Drops


@dataclass
class Seen:
    """One drop: what it looked like at the last tick, and what was asked for it.

    ``generation`` counts the requests of this drop, so that a return to an earlier content is
    a request of its own.
    """

    looks: str
    requested: str | None = None
    generation: int = 0


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

    def request(self, batch: str) -> str:
        """Record that a drop is asked for as it looks now; return the key of the request."""
        seen = self.seen[batch]
        seen.requested = seen.looks
        seen.generation += 1
        return f"{batch}:{seen.looks}:{seen.generation}"

    def accept(self, batch: str) -> None:
        """Record that a drop needs no request as it looks now."""
        self.seen[batch].requested = self.seen[batch].looks

    def new_warnings(self, drops: Drops) -> dict[str, str]:
        """Return the unusable names not reported before, with their reasons."""
        new = {n: reason for n, reason in drops.unusable.items() if n not in self.warned}
        self.warned = sorted(drops.unusable)
        return new
