"""Registers tonight's ranker and reward model in MLflow, with their lineage, as challengers."""
