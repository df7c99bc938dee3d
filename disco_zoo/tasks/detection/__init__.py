"""Object detection and instance segmentation with the backbones of the zoo (spec 4.5)."""
