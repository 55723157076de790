"""What a role declares in Git, and the values that a device gives it.

    schema          role.yaml: its models and the strict parser. Open it to see what a role may say.
    role            a loaded role folder: its files, its checks with every variable filled in
    variables       the device's .env against the declared variables: reading, checking, interpolation
    compose_source  the compose file as it was signed: read within bounds, and followed to no other place
    host_table      the table of what a role can take of the device, and what of it must be declared
    host_uses       what a compose file takes of the device
    host_paths      what the paths of a compose file mean on a device
    host_access     what a role takes that it neither declares nor can have: the three above meet here
    references      where a text refers to variables
    refusal         why a release is not taken

May import the shared words (`errors`, ...) only. Imports nothing here: the parser needs yaml, which the
daemon never loads.
"""

__all__ = [
    "compose_source",
    "host_access",
    "host_paths",
    "host_table",
    "host_uses",
    "references",
    "refusal",
    "role",
    "schema",
    "variables",
]
