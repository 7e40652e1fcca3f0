"""One optimizer step: losses, learning rate, clipping, optimizers, and what each draws at random."""
