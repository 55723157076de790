"""Which lines a regular expression matches, as a program: one that never ends takes nobody along.

`python -I -S pattern_matcher.py SECONDS` reads `{"pattern": …, "lines": […]}` and prints the numbers of
the lines that match. After that many seconds of processor time the kernel ends it. It needs the standard
library only.
"""

from __future__ import annotations

import json
import re
import resource
import sys


def _main() -> None:
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    pattern = re.compile(asked["pattern"])
    print(json.dumps([number for number, line in enumerate(asked["lines"]) if pattern.search(line)]))


if __name__ == "__main__":
    _main()
