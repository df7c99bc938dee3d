"""Downstream tasks: fine-tuning, detection, segmentation."""
