"""The nuScenes map expansion: polygons of roads, crossings, walkways and car parks, in global metres."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shapely import Polygon, STRtree

from omma.data.formats.frame import require
from omma.data.formats.nuscenes import Record, Tables
from omma.data.formats.nuscenes_bev import LAYERS, Layers
from omma.data.io import read_json
from omma.errors import DataError

LOCATIONS = ("boston-seaport", "singapore-onenorth", "singapore-queenstown", "singapore-hollandvillage")


def map_file(root: Path, location: str) -> Path:
    """Where the polygons of a city are."""
    return root / "maps" / "expansion" / f"{location}.json"


def locations(tables: Tables) -> dict[str, str]:
    """Scene token -> the city it was recorded in.

    Raises:
        DataError: the log table is missing or lacks a scene's log.
    """
    where = str(tables.root / tables.version / "log.json")
    cities = {record["token"]: require(record, "location", where) for record in tables.rows("log")}
    return {token: require(cities, scene["log_token"], where) for token, scene in tables.scenes.items()}


def require_maps(root: Path, cities: Iterable[str]) -> None:
    """Raise DataError, with what to download, unless the polygons of all cities are there."""
    missing = [name for name in sorted(set(cities)) if not map_file(root, name).is_file()]
    if missing:
        names = ", ".join(f"{name}.json" for name in missing)
        raise DataError(
            f"{map_file(root, missing[0]).parent}: the map expansion is missing: {names}",
            'download "Map expansion pack (v1.3)" from nuscenes.org/download and unpack it into '
            f"{root / 'maps'}, so that {map_file(root, missing[0])} exists",
        )


def read_layers(root: Path, location: str) -> Layers:
    """The polygons of a city, by layer; those that cross themselves are left out, as in PON.

    Args:
        root: data set folder, with maps/expansion in it.
        location: such as boston-seaport.

    Raises:
        DataError: the file is missing (with what to download) or lacks a layer.
    """
    require_maps(root, [location])
    file = map_file(root, location)
    content, where = read_json(file), str(file)
    nodes = {node["token"]: (node["x"], node["y"]) for node in require(content, "node", where)}
    records = {record["token"]: record for record in require(content, "polygon", where)}
    layers = {}
    for name in LAYERS:
        tokens = [token for record in require(content, name, where) for token in _polygon_tokens(record)]
        polygons = [_polygon(records[token], nodes) for token in tokens]
        layers[name] = STRtree([polygon for polygon in polygons if polygon.is_valid])
    return layers


def _polygon_tokens(record: Record) -> list[str]:
    """A drivable area has several polygons, every other record one."""
    return record["polygon_tokens"] if "polygon_tokens" in record else [record["polygon_token"]]


def _polygon(record: Any, nodes: dict[str, tuple[float, float]]) -> Polygon:
    exterior = [nodes[token] for token in record["exterior_node_tokens"]]
    holes = [[nodes[token] for token in hole["node_tokens"]] for hole in record["holes"]]
    return Polygon(exterior, [hole for hole in holes if hole])
