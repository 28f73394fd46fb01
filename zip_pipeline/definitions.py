"""The code location that Dagster loads."""

from zip_pipeline.defs.code_location import code_location
from zip_pipeline.defs.resources import default_data_root
from zip_pipeline.secret_files import read_secret_files

read_secret_files()
defs = code_location(default_data_root())
