"""How the embedded weights were made, re-runnable: `python -m pretraining --help`."""
