"""What numbers mean: intervals and tests. Knows numpy and scipy, and nothing else of this project."""
