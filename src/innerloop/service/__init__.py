"""Jobs by HTTP: submitted, kept, run, watched. Imports nothing until a part is asked for."""
