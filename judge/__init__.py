"""THE JUDGE: prompts, back ends, replies, scores, and measures that need no judge. Knows no torch and no model."""
