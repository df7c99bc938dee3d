"""Classifiers from backbones: training on labelled images, and what it leaves behind."""
