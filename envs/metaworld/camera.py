"""Pictures of a MuJoCo model, drawn without a screen: by EGL where it is installed (on a GPU, if there is one), or by OSMesa.

What makes them cheap in software: no shadows, no reflections, no smoothing of edges, and not the parts of the arm behind its
elbow, which hold half of all triangles and touch nothing.
"""

from __future__ import annotations

import atexit
import ctypes.util
import importlib
import os
import sys
from functools import cache
from typing import Any

import numpy as np

from conf.errors import BadRequest
from envs.metaworld.config import View

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
HIDDEN = ("pedestal", "pedestal_feet", "controller_box", "torso", "right_arm_base_link", "head", "right_l0", "right_l1")
ADVICE = "Install one (Debian: apt-get install libegl1, or libosmesa6), or choose another by MUJOCO_GL=egl or MUJOCO_GL=osmesa"
MOST_GEOMS = 1000  # in a scene; the largest has 130


def backend() -> str | None:
    """The module of MuJoCo that draws: what the environment variable MUJOCO_GL says, or what is installed; None: nothing is."""
    if asked := os.environ.get("MUJOCO_GL", "").lower():
        return asked
    if not sys.platform.startswith("linux"):
        return "cgl" if sys.platform == "darwin" else "glfw"
    return next((name for name, library in LIBRARIES.items() if ctypes.util.find_library(library)), None)


def missing() -> str | None:
    """The sentence for a machine on which nothing can draw."""
    return None if backend() else f"MuJoCo draws with EGL or OSMesa, and neither library is installed here. {ADVICE}"


@cache
def graphics(size: int) -> Any:
    """The drawing surface of this process. Its library is asked for by name: `import mujoco`, which chooses one by MUJOCO_GL, may
    have been long ago."""
    surface = importlib.import_module(f"mujoco.{backend()}").GLContext(size, size)
    atexit.register(surface.free)  # before its library ends
    surface.make_current()
    return surface


class Camera:
    """Images of one model."""

    def __init__(self, model: Any, view: View, size: int):
        import mujoco

        self.mujoco, self.model, self.size = mujoco, model, size
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        for geom in range(model.ngeom):
            if mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, model.geom_bodyid[geom]) in HIDDEN:
                model.geom_rgba[geom, 3] = 0
        try:
            graphics(size).make_current()
            self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # whatever a graphics library raises
            raise BadRequest(f"MuJoCo cannot draw with {backend()} ({type(error).__name__}: {error}). {ADVICE}") from error
        self.scene, self.options = mujoco.MjvScene(model, MOST_GEOMS), mujoco.MjvOption()
        for flag in ("SHADOW", "REFLECTION", "SKYBOX", "HAZE"):
            self.scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self.camera = mujoco.MjvCamera()
        self.camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self.camera.azimuth, self.camera.elevation, self.camera.distance = view.azimuth, view.elevation, view.distance
        self.camera.lookat[:] = view.target

    def image(self, data: Any) -> np.ndarray:
        """[size, size, 3] uint8."""
        mujoco, frame = self.mujoco, self.mujoco.MjrRect(0, 0, self.size, self.size)
        mujoco.mj_kinematics(self.model, data)  # a reset moves the goal after it last computed where everything is
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, self.options, None, self.camera, everything, self.scene)
        graphics(self.size).make_current()
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self.context)
        mujoco.mjr_render(frame, self.scene, self.context)
        image = np.empty((self.size, self.size, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, frame, self.context)
        return image[::-1]
