"""Embeddings of images: features in a file, search, and maps."""
