"""The base: loaded, given new tokens, adapted."""
