"""The training core: from a recipe to a student."""
