"""What the operator's commands share.

options    the shared options, and `command`, which adds them to a function
aim        which fleet a command acts on: what is typed, then what is around
context    the control plane a command was pointed at, and how its answers are printed
selection  which devices are meant, asking first, changing them
going_back how many devices a release would be taken back from, and how
confirm    asking before something affects many devices
reason     why it is done, in words or as --reason
selector   selectors as people type them, read and written
lookup     one row by the name that people use
parse      durations, times and KEY=VALUE as people type them
format     times, counts and ids as people read them
"""
