"""Catalogues for inference engines, one file an engine."""
