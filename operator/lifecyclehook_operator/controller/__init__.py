"""From watch events to reconciled hooks."""
