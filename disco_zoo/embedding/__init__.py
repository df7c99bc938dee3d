"""Embedded images: features in a file, searched, drawn, and looked at."""
