"""Moves the champion alias to a version both verdicts speak for, journalled, locked, and repaired after a crash."""
