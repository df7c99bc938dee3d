"""Monitoring of a run: losses, effective rank, online kNN, waiting for data."""
