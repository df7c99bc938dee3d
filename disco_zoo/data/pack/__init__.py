"""Images of any source as parquet shards, resized once."""
