"""The procedural world: seeded town scenes, ray-cast sensors and a writer per on-disk data set format.

`town` draws a scene: plan in `streets`, resting things in `landscape`, actors in `traffic`, light in
`daylight`. `scene` holds it and its state at an instant; `cast` and `render` turn rays into hits and colours;
`sensors` are cameras and LiDAR, `bev` is ground truth from above, `capture` is one frame of it all; `writers`
put frames on disk and `build` runs them.

`rooms` draws furnished rooms, `shell` bare ones; `indoors` renders them, `structured_light` measures
their depth and `handheld` is one frame of it all.
"""
