"""Finished attempts on this disk."""
