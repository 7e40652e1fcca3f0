"""What a run will need, before it needs it: memory and time, measured on tensors without numbers."""
