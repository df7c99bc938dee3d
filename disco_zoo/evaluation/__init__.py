"""How good frozen features are: extraction, nearest neighbours, linear probes (spec 4.1 and 4.2)."""
