"""The steps of the night, one folder each: component.py (the kfp signature) and main.py (reading and writing)."""
