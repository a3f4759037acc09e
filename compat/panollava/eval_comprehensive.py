"""The original's evaluation, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("panollava", "eval_comprehensive.py")
