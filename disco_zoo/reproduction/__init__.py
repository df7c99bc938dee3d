"""Obtaining a checkpoint of the zoo again, with a verdict."""
