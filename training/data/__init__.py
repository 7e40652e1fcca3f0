"""From a user's file to token ids: where rows and bases come from, examples, batches, the plan of an epoch."""
