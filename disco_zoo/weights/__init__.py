"""Weights: installed, bundled, on the Hub, or the authors' files; verified before timm sees them."""
