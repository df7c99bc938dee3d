"""Predicts the cost of a run: FLOPs, memory, disk, loaders and hours. `planning.py` is the entry."""
