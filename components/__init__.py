"""The steps of the night, one folder each: component.py (the kfp signature) and main.py (reading and writing)."""

import os

# torch's OpenMP threads spin while they wait for each other; beside any other busy process that makes training several
# times slower (measured: 48 s against 12 s for the tiny reward model). Must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
