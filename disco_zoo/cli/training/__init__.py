"""Verbs that train: train, reproduce, plan, cache, compare."""
