"""What a user sets: every flag of the scripts, its default and what is wrong with it, and how a command line is read.

Imports no torch: a refusal comes at once."""
