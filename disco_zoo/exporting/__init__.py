"""Backbones as files that run without PyTorch's Python code: written, compared, quantised, timed."""
