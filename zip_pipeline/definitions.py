"""The code location that Dagster loads."""

from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.resources import default_data_root

defs = code_location(default_data_root())
