"""Recipes: strict YAML, inheritance, one check that reports every fault."""
