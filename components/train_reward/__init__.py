"""train_reward: pretrain the history encoder, then train the guide and the judge, two list-level reward models."""
