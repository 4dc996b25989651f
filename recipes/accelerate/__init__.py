"""Accelerate configurations for one machine."""
