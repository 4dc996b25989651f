"""The rankers that need no language model; one file each."""
