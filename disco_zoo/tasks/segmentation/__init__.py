"""Semantic segmentation by a linear head on the frozen feature maps of a backbone."""
