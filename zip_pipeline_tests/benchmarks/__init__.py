"""Measurements on real pools; each module measures one operation and prints one JSON line."""
