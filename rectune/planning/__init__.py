"""What a step of a training takes of memory, told without weights."""
