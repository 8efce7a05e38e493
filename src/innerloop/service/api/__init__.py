"""The HTTP side: routes, who may call them, what they answer. Reads and moves jobs; runs none."""
