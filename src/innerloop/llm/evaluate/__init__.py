"""How well models adapt: shots, graders, adaptation curves, and choosing rates on validation tasks."""
