"""Trains the generator-only ranker by the group-relative objective; survives being killed."""
