"""Tests of item vectors."""
