"""Cached teacher rows, replayed beside the views they belong to."""
