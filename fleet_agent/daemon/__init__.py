"""The long-running process: one loop, its check-ins, what it reports."""
