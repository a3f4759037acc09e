"""Bird's-eye-view labels of nuScenes cameras: classes, bits and cells (PON, arXiv 2003.13402)."""

from __future__ import annotations

CLASSES = (
    *("drivable_area", "ped_crossing", "walkway", "carpark"),
    *("car", "truck", "bus", "trailer", "construction_vehicle"),
    *("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier"),
)
IGNORE_BIT = len(CLASSES)  # set where the cell is out of view or hidden
