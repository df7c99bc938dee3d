"""Object detection and instance segmentation with the backbones of the zoo (`methods.md` 4.5)."""
