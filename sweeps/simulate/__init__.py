"""What would happen: policies over recorded curves, in virtual time."""
