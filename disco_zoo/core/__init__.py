"""Files, locks, processes, randomness, console: what every room stands on and what knows no image."""
