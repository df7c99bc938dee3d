"""Verbs about the zoo: list, show, card, download, verify, convert, publish."""
