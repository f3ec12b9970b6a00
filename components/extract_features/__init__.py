"""Logs to features: one Spark job turns arrival days into feature rows, examples and the state the next night needs."""
