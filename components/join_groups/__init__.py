"""Puts groups that were made in several parts together, and holds them against what a group must be."""
