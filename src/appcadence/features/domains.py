"""Registrable domains by the Public Suffix List."""

from __future__ import annotations

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

from appcadence.telemetry.addresses import is_address


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=100_000)
def registrable_domain(dest: str) -> str:
    """`example.co.uk` of `a.b.example.co.uk`; an address, or a name without such a domain, as it is."""
    return dest if is_address(dest) else _suffixes().privatesuffix(dest) or dest
