"""Evaluation of frozen features: extraction, kNN, linear probes (spec 4.1 and 4.2)."""
