"""Helper lists for every request the ranker may train on, scored by the reward model, in shards."""
