"""A small, seeded, lifelike pool for trying the pipeline out, and text to pre-train on."""

from zip_pipeline.sample_data.drops import STATES, write_sample_data
from zip_pipeline.sample_data.mixture import pretraining_samples, pretraining_text

__all__ = ["STATES", "pretraining_samples", "pretraining_text", "write_sample_data"]
