"""Recipes: strict sections, YAML with one parent, dotted overrides, and messages that name every problem."""
