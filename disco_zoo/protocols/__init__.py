"""Evaluation protocols of the papers as plain data; imports no torch."""
