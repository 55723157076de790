"""Everything about a role folder that can be known before a device sees it.

check     one folder: read it, resolve it, run every check
fleet     what all roles share: the fleet that they are for
checks/   the checks, one group of findings a file
compose   the compose file with its variables filled in
subject   what the checks look at
findings  what they find, and the report
"""

__all__ = ["check", "findings", "fleet"]
