"""What one row asks of the model, and rows to examples."""
