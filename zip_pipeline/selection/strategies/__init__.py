"""Strategies that rank the pool once instead of greedily."""
