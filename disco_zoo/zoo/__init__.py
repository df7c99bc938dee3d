"""The catalog and what is made of it: tables, cards, citations. Imports no torch."""
