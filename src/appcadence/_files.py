"""Atomic replacement and locking of files and directories: all of it is here.

A replacement is written beside its target, synced to disk and moved into place in one step. After a kill or
power failure at any moment, either the old or the new one is there, complete. Directories are exchanged in
one step if Linux and the file system support it (`exchange`). Otherwise the old one waits in the scratch
directory between two renames, and `recover`, which every reader of such a directory calls, brings it back.

Locks need POSIX; without it, taking one raises an error of one sentence. A lock file holds the id of the
process that has the lock.

Tests can watch every step on disk, or make it fail, with `sys.addaudithook`: Python reports each rename,
removal and opening, and this module reports `appcadence.sync` and `appcadence.exchange`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from appcadence._inputs import kind_of
from appcadence.errors import AppcadenceError

_LOCK, _NEW, _OLD = "lock", "new", "old"
_MAX_ATTEMPTS = 100
"""Attempts to create a scratch directory that other runs keep removing."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def check_output(path: str | Path, error: Callable[[str], AppcadenceError] = AppcadenceError) -> Path:
    """The file that a write to `path` would create or replace; symbolic links are followed.

    Raises:
        AppcadenceError: `error`, if the path is a directory, pipe, device or socket.
    """
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        raise error(f"{path} is {kind_of(mode)}; name a regular file or a new path")
    return Path(os.path.realpath(path))


@contextmanager
def replacing(
    target: str | Path, within: Path | None = None, *, durable: bool = True, private: bool = False
) -> Iterator[Path]:
    """An empty file to write. It replaces `target` if the block succeeds, and is removed otherwise.

    The file is in the directory `within`, which must be on the same file system. By default that is the
    target's own scratch directory, which is waited for. The target keeps its mode; a new `private` target is
    readable only by its owner. If not `durable`, the file is not synced: after a power failure the target may
    be truncated.

    Raises:
        AppcadenceError: as `check_output`.
    """
    real = check_output(target)
    if within is None:
        with (
            scratch(real, wait=True) as place,
            replacing(real, place, durable=durable, private=private) as temporary,
        ):
            yield temporary
        return
    temporary = within / f".{real.name[:50]}.{secrets.token_hex(8)}.tmp"
    # The replacement of a private file must be private from its first byte on.
    mode = 0o600 if private or real.exists() else 0o666
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
        move(temporary, real, durable=durable)
    finally:
        temporary.unlink(missing_ok=True)


def move(written: Path, target: Path, *, durable: bool = True) -> None:
    """Replace `target` by a complete file in one step and sync it; the mode of the target is kept."""
    if durable:
        sync(written)
    with contextlib.suppress(FileNotFoundError):
        written.chmod(stat.S_IMODE(target.stat().st_mode))
    written.replace(target)
    if durable:
        sync(target.parent)


def write_text(target: str | Path, text: str) -> None:
    """Replace a file with a text in UTF-8; see `replacing`."""
    with replacing(target) as file:
        file.write_text(text, encoding="utf-8")


@contextmanager
def scratch(target: str | Path, *, resume: bool = False, wait: bool = False) -> Iterator[Path]:
    """A locked directory beside `target`, which every writer of the same target must hold.

    It is removed in the end. With `resume` it contains what a killed or failed run left, and is kept if this
    run fails; otherwise it is empty. With `wait` the function waits for another run to finish.

    Raises:
        AppcadenceError: another run holds the directory.
    """
    place, real = _scratch(target)
    made = [parent for parent in place.parents if not parent.exists()]
    with _owned(place, target, wait):
        failed = True
        try:
            _settle(place, real)
            if not resume:
                clear(place)
            yield place
            failed = False
        finally:
            if not (failed and resume):
                _remove(place)
                with contextlib.suppress(OSError):  # one that is in use is not empty
                    for parent in made:
                        parent.rmdir()


def clear(place: Path) -> None:
    """Remove everything in a scratch directory except its lock."""
    for left in place.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif left.name != _LOCK:
            left.unlink()


@contextmanager
def replacing_directory(target: str | Path, within: Path, *, private: bool = False) -> Iterator[Path]:
    """An empty directory that takes the place of `target` when the block ends well, and else is removed.

    It lies in `within`, the target's scratch directory. The target keeps its mode; a new one that is
    `private` is its owner's alone.

    Raises:
        AppcadenceError: it exists and is not a directory.
    """
    real, new = Path(os.path.realpath(target)), within / _NEW
    if real.exists() and not real.is_dir():
        raise AppcadenceError(f"{target} is not a directory; name a directory or a new path")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(0o700 if private else 0o777)
    try:
        yield new
        _swap(new, real, within / _OLD)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def recover(target: str | Path) -> None:
    """Restore a directory that a run had moved aside when it was killed between two renames."""
    place, real = _scratch(target)
    if not real.exists() and (place / _OLD).is_dir():
        with _owned(place, target, wait=True):
            _settle(place, real)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; False if the system or file system cannot, and nothing is done."""
    sys.audit("appcadence.exchange", str(first), str(second))
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    places = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    return bool(renameat2(*places, _RENAME_EXCHANGE) == 0)


def lock(handle: int, *, shared: bool = False, wait: bool = True) -> bool:
    """Take the advisory lock of an open file; closing the file releases it. False = someone else has it.

    Raises:
        AppcadenceError: the system has no such locks.
    """
    try:
        import fcntl  # only POSIX has it, and reading does not need it
    except ImportError:
        raise AppcadenceError(
            "this system has no POSIX file locks, which are needed for writing; use Linux or macOS "
            "(on Windows, the Linux subsystem)"
        ) from None
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise AppcadenceError(
            f"the file system has no file locks ({error.strerror}); write to another file system"
        ) from None
    return True


def unlock(handle: int) -> None:
    """Release the lock of an open file."""
    import fcntl

    fcntl.flock(handle, fcntl.LOCK_UN)


def sync(path: Path) -> None:
    """Sync a file, or the entries of a directory, to disk."""
    sys.audit("appcadence.sync", str(path))
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync directories.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _scratch(target: str | Path) -> tuple[Path, Path]:
    """The scratch directory of a target, and the target with links resolved ("." has no name of its own)."""
    real = Path(os.path.realpath(target))
    return real.parent / f".{real.name}.scratch", real


@contextmanager
def _owned(place: Path, target: str | Path, wait: bool) -> Iterator[None]:
    """Create a scratch directory and hold its lock file.

    The lock is on a file and not on the directory: network file systems lock only what can be written.
    """
    handle, attempts = None, 0
    while handle is None:
        attempts += 1
        try:
            place.mkdir(0o700, parents=True, exist_ok=True)
            handle = _locked(place / _LOCK, target, wait)
        except FileNotFoundError:
            # Another run has just removed it; if nothing can be created, as in /proc, it stays missing.
            if attempts == _MAX_ATTEMPTS:
                raise
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # likewise, during mkdir
                if not stat.S_ISDIR(place.lstat().st_mode):
                    raise
    try:
        yield
    finally:
        os.close(handle)


def _locked(file: Path, target: str | Path, wait: bool) -> int | None:
    """The lock file, open and locked; None if its holder removed it in the meantime."""
    handle, ours = os.open(file, os.O_RDWR | os.O_CREAT, 0o666), False
    try:
        if not lock(handle, wait=wait):
            raise AppcadenceError(
                f"another run is writing {target}{_holder(handle)}; start again when it has finished"
            )
        ours = os.path.samestat(os.fstat(handle), file.stat())
        if ours:
            with contextlib.suppress(OSError):  # on a full disk, the id is missing
                os.ftruncate(handle, 0)
                os.pwrite(handle, str(os.getpid()).encode(), 0)
        return handle if ours else None
    finally:
        if not ours:
            os.close(handle)


def _holder(handle: int) -> str:
    """The process that has the lock, if known: it writes its id shortly after taking the lock."""
    for _ in range(_MAX_ATTEMPTS):
        if (number := os.pread(handle, 20, 0)).isdigit():
            return f" (process {int(number)})"
        time.sleep(0.01)
    return ""


def _remove(place: Path) -> None:
    """Remove a scratch directory, its lock last, since another run may take it from then on."""
    with contextlib.suppress(OSError):
        clear(place)
        (place / _LOCK).unlink()
        place.rmdir()


def _settle(place: Path, real: Path) -> None:
    """Finish or undo the swap of a run that was killed between two renames."""
    old = place / _OLD
    if old.is_dir() and not real.exists():
        old.rename(real)
    shutil.rmtree(old, ignore_errors=True)


def _swap(new: Path, real: Path, old: Path) -> None:
    for folder, _, files in os.walk(new):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    if real.exists():
        new.chmod(stat.S_IMODE(real.stat().st_mode) | stat.S_IRWXU)
    try:
        new.rename(real)  # an empty or missing directory is replaced in one step
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not exchange(new, real):
            _swap_in_two(new, real, old)
    sync(real.parent)


def _swap_in_two(new: Path, real: Path, old: Path) -> None:
    real.rename(old)
    try:
        new.rename(real)
    except BaseException:
        old.rename(real)
        raise
    sync(real.parent)
    shutil.rmtree(old, ignore_errors=True)
