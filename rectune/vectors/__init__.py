"""Vectors of items, one file per source: texts, a language model's hidden states, a SASRec, a file."""
