"""Recommenders without a language model: rows of the table, the prior inside the search, a source of vectors."""
