"""Files that survive a kill and a full disk, and what a run folder may hold. Imports nothing heavy."""
