"""The authors' networks as small modules, written from the facts in their papers and in spec 6 and 7.

They share no code with `disco_zoo` or timm, so that a converted file can be compared with what its authors compute.
"""
