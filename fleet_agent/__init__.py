"""The agent that runs on every device of a Metrica Fleet."""

__version__ = "0.1.0"
