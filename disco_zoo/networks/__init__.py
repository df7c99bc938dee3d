"""Network architectures: the variants that timm lacks, input sizes, feature maps."""

# First of all: importing timm registers the students, and the module of their networks must not be half imported then,
# see `models.registration`.
import timm  # noqa: F401
