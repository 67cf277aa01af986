"""JSON objects one by one, from an array or from one a line, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appcadence.telemetry.readers import _lines
from appcadence.telemetry.readers._json import object_of

MAX_OBJECT = 4 << 20
"""Characters of one object of an array; a longer one is passed over."""
BLOCK_BYTES = 1 << 20

_BETWEEN = re.compile(r"[\s,\[\]]*")
_NEXT_LENGTH = 1024
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")


@dataclass
class Objects:
    """Some consecutive objects of a file."""

    good: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """(line, or place in the array, from 1; object)"""
    bad: list[int] = field(default_factory=list)
    """Lines or places that hold no object."""
    size: int = 0
    """Bytes of the file on disk that were read for these."""


def objects(path: Path, expected: str) -> Iterator[Objects]:
    """The objects of a file, plain or gzip; an array is told from lines by its first character.

    Raises:
        TelemetryError: the file is missing, empty, unreadable or damaged gzip.
    """
    head = _lines.head(path, expected)
    array = head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    return _of_array(path, expected) if array else _of_lines(path, expected)


def first_objects(head: bytes, count: int = 100) -> Iterator[dict[str, Any]]:
    """The first objects of an array or of lines whose end may be cut off."""
    if not head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from (row for line in head.splitlines()[:count] if (row := object_of(line)) is not None)
        return
    scanner = _Scanner(head.decode("utf-8-sig", "replace"))
    scanner.scan(last=False)
    yield from (row for _, row in scanner.found.good[:count])


def _of_lines(path: Path, expected: str) -> Iterator[Objects]:
    for block in _lines.blocks(path, expected, BLOCK_BYTES):
        found = Objects(size=block.size)
        for number, text in enumerate(block.data.split(b"\n"), block.line):
            if text.strip():
                row = object_of(text)
                if row is None:
                    found.bad.append(number)
                else:
                    found.good.append((number, row))
        yield found


def _of_array(path: Path, expected: str) -> Iterator[Objects]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    scanner = _Scanner()
    for data, size in _lines.pieces(path, expected, BLOCK_BYTES):
        scanner.text += decoder.decode(data)
        scanner.scan(last=False)
        scanner.found.size = size
        yield scanner.found
    scanner.text += decoder.decode(b"", True)
    scanner.scan(last=True)
    yield scanner.found


class _Scanner:
    """Takes whole objects off the front of a growing text."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.found = Objects()
        self._number = 0
        self._lost = False
        """Inside an object that was given up."""
        self._decode = json.JSONDecoder().raw_decode

    def scan(self, last: bool) -> None:
        """Fill `found` from the text, as far as it holds whole objects; `last`: no more text will come."""
        self.found = Objects()
        at = 0
        while True:
            if self._lost:
                again = _NEXT.search(self.text, at)
                if again is None:
                    # The match may lie across the end.
                    at = len(self.text) if last else max(at, len(self.text) - _NEXT_LENGTH)
                    break
                at, self._lost = again.end(), False
            between = _BETWEEN.match(self.text, at)
            at = between.end() if between else at
            if at >= len(self.text):
                break
            row, end = self._object(at)
            if row is None and not last and end and len(self.text) - at < MAX_OBJECT:
                break
            self._number += 1
            if row is None:
                self.found.bad.append(self._number)
                self._lost = True
            else:
                self.found.good.append((self._number, row))
                at = end
        self.text = self.text[at:]

    def _object(self, at: int) -> tuple[dict[str, Any] | None, int]:
        """The object at a place and where it ends; None and 0 where more text would not help."""
        if self.text[at] != "{":
            return None, 0
        try:
            row, end = self._decode(self.text, at)
        except RecursionError:
            return None, 0
        except ValueError:
            return None, 1
        return row, end
