"""Subset file to model and losses; torch, transformers and TRL are imported inside functions."""
