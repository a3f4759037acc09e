"""Names that the original's users import."""
