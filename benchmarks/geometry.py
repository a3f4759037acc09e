"""Does a model learn from its calibration? The demo's training with right and with inverted extrinsics.

    .venv/bin/python benchmarks/geometry.py [--data DIR] [--json FILE]

Inverted extrinsics stack all views on one spot: a model that uses its calibration must fall far behind.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import omma
from omma.commands.world import make_world
from omma.systems import get


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the demo's data set; made if it is not given")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or _demo_data(Path(folder) / "data")
        result = {
            name: _held_out_iou(data, Path(folder), name, inverted)
            for name, inverted in (("right", False), ("inverted", True))
        }
    result["load"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    print(f"held-out IoU: right extrinsics {result['right']:.3f}, inverted {result['inverted']:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result), encoding="utf-8")


def _demo_data(folder: Path) -> Path:
    demo = get("lss").demo
    height, width = demo.options["image_size"]
    options = {key: value for key, value in demo.options.items() if key != "image_size"}
    return make_world(demo.world, folder, image_size=f"{height}x{width}", **options)


def _held_out_iou(data: Path, runs: Path, name: str, inverted: bool) -> float:
    settings = {"data.root": str(data), "data.invert_extrinsics": inverted}
    run = omma.train("lss/demo", name=name, runs_dir=str(runs / "runs"), **settings)
    return omma.evaluate(run).metrics["iou"]


if __name__ == "__main__":
    main()
