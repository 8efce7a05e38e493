"""Rows, splits and prepared task folders: everything between a raw file and a batch of token ids.

``rows`` reads every accepted format, ``presets`` turn sources into tasks, ``splits`` keeps them disjoint,
``prepared`` owns the folder layout and ``tokens`` makes batches. No model is loaded here.
"""
