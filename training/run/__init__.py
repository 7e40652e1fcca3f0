"""What a run remembers, writes and says: its folder, checkpoint, curve, results.json and pictures."""
