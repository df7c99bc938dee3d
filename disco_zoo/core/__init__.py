"""Files, locks, processes, randomness, console: what all other rooms use."""
