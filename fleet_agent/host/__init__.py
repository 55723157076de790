"""This machine: its services, its facts, its memory."""
