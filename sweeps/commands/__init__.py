"""The commands beside the first five, a file each, and what commands share."""
