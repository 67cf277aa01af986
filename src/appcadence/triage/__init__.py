"""Scores -> decisions: alerts, exceptions, reports, verdicts and the audit log."""
