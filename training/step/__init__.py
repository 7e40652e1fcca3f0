"""One optimizer step.

losses.py has every loss, update.py the learning rate, exact gradients over micro-batches and processes, and clipping,
optimizers.py the optimizers, seeds.py the random streams, processes.py what the processes of a run tell each other.
"""
