"""Run folders: what a training writes and every other command reads. Importing this loads no torch."""
