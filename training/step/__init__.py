"""One optimizer step.

losses.py has every loss, update.py the learning rate, the gradients averaged over micro-batches and processes, and
clipping, optimizers.py the optimizers, seeds.py what each draws at random.
"""
