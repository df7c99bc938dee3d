"""Converts published checkpoint files to tensors of timm networks without executing their pickles."""

from disco_zoo.weights.convert.conversion import Converted, read_checkpoint
from disco_zoo.weights.convert.layouts import TITLES
from disco_zoo.weights.convert.networks import head_module, head_widths
from disco_zoo.weights.convert.reading import read_run_facts

__all__ = ["TITLES", "Converted", "head_module", "head_widths", "read_checkpoint", "read_run_facts"]
