"""Verbs that use a model: evaluate, finetune, detect, segment, data, embed, search, map, export."""
