"""The flags of the scripts: their defaults, the checks of their values, and the parser of a command line.

Nothing here imports torch, so that a refusal comes at once."""
