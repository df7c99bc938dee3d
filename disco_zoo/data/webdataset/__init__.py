"""Indexed webdataset shards."""
