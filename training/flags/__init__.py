"""What a user sets: the flags of the scripts, their defaults, what is wrong with a value, how a command line is read.

Nothing here imports torch, so that a refusal comes at once."""
