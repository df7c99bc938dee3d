"""What pixel values mean: bit depths and colour profiles."""
