"""Stands for the graph's process: prints its arguments as they are, and all goes well."""

import os
import sys

for descriptor in (1, 2):
    # Also a character that comes in two parts.
    os.write(descriptor, os.fsencode(" ".join(sys.argv[1:])) + b" \xff \xc3")
    os.write(descriptor, b"\xa9\n")
