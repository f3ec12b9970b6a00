"""Scores challenger and champion on the same requests of the newest day and writes the verdict."""
