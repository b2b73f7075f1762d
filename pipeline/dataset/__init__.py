"""Where images come from, how they are stored between the stages, and how training draws them in batches."""
