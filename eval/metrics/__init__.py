"""One metric a file: formula, source, edge cases."""
