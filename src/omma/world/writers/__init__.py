"""One writer per on-disk format."""
