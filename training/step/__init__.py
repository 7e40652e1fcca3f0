"""One optimizer step.

losses.py has every loss, update.py averages their gradients over micro-batches and processes, schedule.py the learning
rate and clipping, optimizers.py the optimizers, seeds.py what each draws at random.
"""
