"""Typed settings out of layered YAML, for any domain: each value with its place, each key and range checked.

A domain declares frozen dataclasses with the marks of `constraints` beside their types; `layers` reads and
merges files and ``key=value`` words; `reader` builds the dataclasses. Which keys there are is the domain's.
"""
