"""Figures: style, training curves, maps of embeddings, the chart of the zoo."""
