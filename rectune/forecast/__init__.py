"""What a recipe will take, told before it is run, and a first recipe for a log."""
