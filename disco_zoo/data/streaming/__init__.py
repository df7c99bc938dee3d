"""Streams: images that come in an order of their own and have no index."""
