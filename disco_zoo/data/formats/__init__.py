"""The forms in which images lie on disk: folders, tars, parquet, names with a prefix of timm."""
