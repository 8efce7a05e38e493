"""Labelled images in memory, and where they come from."""
