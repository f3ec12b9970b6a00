"""materialize_features: the snapshot into Feast, offline and online, and the training set out of it."""
