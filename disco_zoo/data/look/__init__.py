"""What a source holds, found out once: counts, modes, bit depths, what is left out and what is converted."""
