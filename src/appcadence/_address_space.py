"""Whether this process may use as much address space as compiled code and threads reserve."""

from __future__ import annotations

import resource

from appcadence.errors import AppcadenceError

MIN_BYTES = 3 << 30
"""LLVM and Arrow end the process where they find no room for code or threads: seen at 2 GB, not at 2.5."""


def check_address_space() -> None:
    """Raise an AppcadenceError where a limit (`ulimit -v`) leaves too little, before a library ends the
    process without a word that helps."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_BYTES:
        raise AppcadenceError(
            f"this process may use {limit / 2**30:.1f} GiB of address space and needs {MIN_BYTES >> 30}, "
            "most of which stays unused; raise the limit (ulimit -v), and bound memory itself with a control "
            "group, such as MemoryMax of systemd"
        )
