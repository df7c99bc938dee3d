"""Figures: style, curves, maps of embeddings, the zoo as a picture."""
