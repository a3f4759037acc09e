"""The verbs as plain functions: `omma.cli` parses for them, `omma.train` and its like are them."""
