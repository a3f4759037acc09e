"""Shares of the classes among visible cells of the nuScenes training images (PON, arXiv 2003.13402)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omma.systems.diffbev.config import DiffBEVSystem

PRIORS = {
    **{"drivable_area": 0.44679, "ped_crossing": 0.02407, "walkway": 0.14491, "carpark": 0.02994},
    **{"car": 0.02086, "truck": 0.00477, "bus": 0.00156, "trailer": 0.00189, "construction_vehicle": 0.00084},
    **{"pedestrian": 0.00119, "motorcycle": 0.00019, "bicycle": 0.00012, "traffic_cone": 0.00031},
    "barrier": 0.00176,
}


def class_priors(system: DiffBEVSystem) -> list[float]:
    """Share of each of a recipe's classes, as given there or as published."""
    return list(system.priors or [PRIORS[name] for name in system.classes])
