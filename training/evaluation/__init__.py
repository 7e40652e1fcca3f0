"""What a model makes of examples: predictions and answers, metrics, forgetting, a trained model on new rows."""
