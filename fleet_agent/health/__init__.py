"""Is what was started well?

One interface (`base`), one small file per kind of check, one pure judge (`probation`).
"""
