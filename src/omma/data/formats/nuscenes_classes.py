"""The classes of nuScenes bird's-eye-view labels (PON, arXiv 2003.13402); in a light module, for recipes."""

CLASSES = (
    *("drivable_area", "ped_crossing", "walkway", "carpark"),
    *("car", "truck", "bus", "trailer", "construction_vehicle"),
    *("pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier"),
)
