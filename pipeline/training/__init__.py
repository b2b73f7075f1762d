"""The training loop and what it stands on; used by the train stage and the paper's experiments."""
