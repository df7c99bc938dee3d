"""What a source holds: counts, modes, bit depths, and what is left out or converted."""
