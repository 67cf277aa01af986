"""Registrable domains by the Public Suffix List."""

from __future__ import annotations

import ipaddress
from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=100_000)
def registrable_domain(dest: str) -> str:
    """`example.co.uk` of `a.b.example.co.uk`; an address, or a name that is none, stands for itself."""
    try:
        ipaddress.ip_address(dest)
    except ValueError:
        return _suffixes().privatesuffix(dest) or dest
    return dest
