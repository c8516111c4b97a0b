"""Many trainings of `tinylm`: search spaces, an append-only ledger, early stopping, analysis."""
