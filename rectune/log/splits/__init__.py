"""Splits of a log, one file each: `name` in a recipe is the function of that name in the file of that name."""
