"""What a role declares in Git, and the values that a device gives it.

    schema     role.yaml: its models and the strict parser. Open it to see what a role may say.
    role       a loaded role folder: its files, its checks with every variable filled in
    variables  the device's .env against the declared variables: reading, checking, interpolation

May import the shared words (`errors`, ...) only. Imports nothing here: the parser needs yaml, which the
daemon never loads.
"""

__all__ = ["role", "schema", "variables"]
