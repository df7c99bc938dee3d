"""Batches from processes that read images: every wait has an end, and what ends it is said in one line."""
