"""The sources of tasks, one file each; ``base`` says what a preset is."""
