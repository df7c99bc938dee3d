"""What a run will cost, before anyone pays: FLOPs, memory, disk, loaders and hours. `planning.py` is the entry."""
