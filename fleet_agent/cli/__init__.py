"""The command line of a device: one file a group of commands; `main` holds the parser."""
