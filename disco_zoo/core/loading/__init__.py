"""Batches from processes that read images: every wait has a time limit, and a failure is reported in one line."""
