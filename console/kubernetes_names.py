"""Names that Kubernetes takes, by their looks; what is none its API server refuses, in the middle of the night."""

from __future__ import annotations

import re

LONGEST_SUBDOMAIN = 253
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def is_subdomain(text: str) -> bool:
    """Most objects' names, claims and accounts among them (RFC 1123)."""
    return len(text) <= LONGEST_SUBDOMAIN and _SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """A namespace's name (RFC 1123)."""
    return _LABEL.fullmatch(text) is not None


def is_service(text: str) -> bool:
    """A Service's name, and an InferenceService's: a label that begins with a letter (RFC 1035)."""
    return is_label(text) and text[0].isalpha()


def is_value(text: str) -> bool:
    """The value of a label, and the last part of its key."""
    return _VALUE.fullmatch(text) is not None


def is_qualified(text: str) -> bool:
    """The key of a label or a taint, or a resource: a name with or without a domain before it."""
    domain, slash, name = text.rpartition("/")
    return (not slash or is_subdomain(domain)) and is_value(name)
