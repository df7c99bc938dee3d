"""What a run is watched by: losses, rank and kNN during training, waiting for data."""
