"""What was found: typed facts, folded from the ledger."""
