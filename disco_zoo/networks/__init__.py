"""Network architectures: the variants that timm lacks, input sizes, feature maps."""
