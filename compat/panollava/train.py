"""The original's training command, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("panollava", "train.py")
