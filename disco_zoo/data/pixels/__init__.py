"""Interpretation of pixel values: bit depths, color profiles, and which way up an image is."""
