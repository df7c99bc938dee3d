"""Backbones exported to files that run without PyTorch's Python code: written, compared, quantized, timed."""
