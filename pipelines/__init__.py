"""The pipelines: they wire components and do nothing else."""

STEPS = (
    "check_logs",
    "extract_features",
    "check_features",
    "materialize_features",
    "train_reward",
    "generate_groups",
    "train_ranker",
    "register_model",
    "evaluate_ranker",
    "smoke_serve",
    "gate_promotion",
    "promote_model",
    "publish_report",
)
"""Every step in the order data flows, as the console shows them."""
