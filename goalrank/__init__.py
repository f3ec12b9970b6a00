"""GoalRank: group-relative optimisation of a list ranker (arXiv 2509.22046), the method alone.

This package knows torch, numpy and pyarrow. It knows no Kubeflow, MLflow, Feast, Spark or Great Expectations:
those live in ``components/`` (reading and writing) and ``pipelines/`` (wiring). A test keeps it so.
"""

__version__ = "0.1.0"
