"""Views and evaluation transforms: from an image to the pixels that a network sees."""
