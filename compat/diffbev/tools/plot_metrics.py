"""The original's comparison of runs, by omma; --help lists its options."""

from omma.compat import run

if __name__ == "__main__":
    run("diffbev", "plot_metrics.py")
