"""What the scripts share, in rooms; each imports those before it: storage, flags, data, step, model, evaluation, run,
forecast."""
