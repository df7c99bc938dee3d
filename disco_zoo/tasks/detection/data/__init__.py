"""Annotated images: COCO, VOC, masks, and which are held out."""
