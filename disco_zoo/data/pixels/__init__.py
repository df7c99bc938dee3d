"""Interpretation of pixel values: bit depths and color profiles."""
