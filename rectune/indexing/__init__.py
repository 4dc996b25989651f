"""How items get their names inside the language model; one file per way."""
