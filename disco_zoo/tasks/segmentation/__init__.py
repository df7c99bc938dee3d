"""Semantic segmentation by a linear head on the frozen maps of a backbone: how much its features know of each place."""
