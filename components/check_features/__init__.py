"""Third step of the night: tonight's feature rows and examples, before anything trains on them or serves them."""
