"""How good frozen features are: extraction, nearest neighbours, linear probes (`methods.md` 4.1 and 4.2)."""
