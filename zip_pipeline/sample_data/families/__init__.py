"""The task families: each module makes tasks of several kinds, all with right answers."""

from collections.abc import Mapping

from zip_pipeline.sample_data.families import (
    arithmetic,
    dates,
    follow_ups,
    functions,
    knowledge,
    lists,
    rewriting,
    strings,
    tables,
    tool_use,
    units,
)
from zip_pipeline.sample_data.task import Maker

FAMILIES: Mapping[str, tuple[Maker, ...]] = {
    "arithmetic": arithmetic.KINDS,
    "dates": dates.KINDS,
    "units": units.KINDS,
    "strings": strings.KINDS,
    "lists": lists.KINDS,
    "functions": functions.KINDS,
    "knowledge": knowledge.KINDS,
    "tables": tables.KINDS,
    "rewriting": rewriting.KINDS,
    "follow_ups": follow_ups.KINDS,
    "tool_use": tool_use.KINDS,
}
