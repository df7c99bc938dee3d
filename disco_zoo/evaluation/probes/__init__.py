"""Linear probes and fine-tuning by the protocols of the papers."""
