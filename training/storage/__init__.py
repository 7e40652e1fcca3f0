"""Files that survive a kill and a full disk, and what a run folder may hold. Nothing heavy is imported."""
