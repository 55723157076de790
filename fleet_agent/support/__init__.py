"""Helpers for files, processes and time that know nothing of the product.

    atomic_files  files that are the old version or the new one, and never half of one
    processes     run a program, limited in time, memory and output, that ends with us
    keeper        starts a program, and ends all that it leaves behind
    patterns      search lines for a regular expression, within bounds (in `pattern_matcher`, a program)
    death_signal  has the kernel end a program with the process that started it
    open_files    which process has a file open
    orphans       end what a killed engine left running
    clock         the time on a machine whose clock may be wrong
    deadline      a limit for a whole connection, not for each read
    fingerprint   a public key as people compare it
    plain_text    texts without what a terminal would obey
    retry         every retry policy: who, how often, how long
    sizes         units of bytes
    words         numbers in sentences

May import the shared words (`errors`, `model`, `paths`, ...) only. Imports nothing here: the daemon uses it.
"""

__all__ = [
    "atomic_files",
    "clock",
    "deadline",
    "death_signal",
    "fingerprint",
    "keeper",
    "open_files",
    "orphans",
    "patterns",
    "plain_text",
    "processes",
    "retry",
    "sizes",
    "words",
]
