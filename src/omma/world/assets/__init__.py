"""Mesh builders: vehicles, people, buildings and street furniture."""
