"""The peak memory of a child process."""

KILOBYTES = """
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
"""
"""Code for the child: `peak()` gives its own peak in kB. What getrusage says begins with its parent's."""
