"""A table with cubes, goals to push them to, and panda-gym's Franka arm (Gallouedec et al. 2021, arXiv 2106.13687), in PyBullet.

The physics is that of PandaPush-v3. What differs: the whole scene is loaded anew for every episode, because Bullet's contact
caches make an episode depend on the one before it; the arm is drawn with the coarse meshes that it collides with, which is seven
times as fast; goals have other colours than cubes; and the camera stands where the hand hides neither. TinyRenderer draws: it
needs no graphics library.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from envs.push.config import Camera

CUBE = 0.04  # metres of a side
PLATE = (0.04, 0.04, 0.001)  # half extents of a goal that is told from cubes by its shape
COLOURS = {"green": (0.1, 0.9, 0.1), "red": (0.9, 0.1, 0.1), "blue": (0.1, 0.2, 0.9), "yellow": (0.95, 0.85, 0.1)}
BASE = (-0.6, 0.0, 0.0)  # where the arm stands


@contextmanager
def quiet() -> Iterator[None]:
    """PyBullet prints what it is and how it was called, from C; only redirected file descriptors silence that."""
    libc = ctypes.CDLL(None)
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    libc.fflush(None)
    saved = {}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with suppress(OSError):  # it may be closed
            saved[descriptor] = os.dup(descriptor)
            os.dup2(nowhere, descriptor)
    try:
        yield
    finally:
        libc.fflush(None)  # or what waits in C's buffer would come out later
        for descriptor, copy in saved.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


with quiet():
    import pybullet
    import pybullet_data
    from panda_gym.envs.robots.panda import Panda
    from panda_gym.pybullet import PyBullet


class CoarsePanda(Panda):
    def _load_robot(self, file_name: str, base_position: np.ndarray) -> None:
        folder = Path(pybullet_data.getDataPath()) / "franka_panda"
        robot = (folder / "panda.urdf").read_text().replace("meshes/visual/", "meshes/collision/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "panda.urdf"
            path.write_text(robot.replace("package://", f"{folder}/"))
            super()._load_robot(str(path), base_position)


class Scene:
    """Cubes and goals, named by their colours, and the arm, whose closed hand points down. `plates`: goals lie flat."""

    def __init__(self, camera: Camera, plates: bool):
        self.plates = plates
        with quiet():
            self.bullet = PyBullet(render_mode="rgb_array", renderer="Tiny")
        self.client = self.bullet.physics_client
        self.view = self.client.computeViewMatrixFromYawPitchRoll(
            cameraTargetPosition=camera.target,
            distance=camera.distance,
            yaw=camera.yaw,
            pitch=camera.pitch,
            roll=0,
            upAxisIndex=2,
        )
        self.lens = self.client.computeProjectionMatrixFOV(fov=camera.fov, aspect=1.0, nearVal=0.05, farVal=5.0)

    def build(self, cubes: dict[str, np.ndarray], goals: dict[str, np.ndarray]) -> None:
        """Load everything anew, cubes and goals [3] by colour. In PandaPush-v3's own order, on which the solver's sums depend."""
        bullet, client = self.bullet, self.client
        client.resetSimulation()
        client.setTimeStep(bullet.timestep)
        client.setGravity(0, 0, -9.81)
        client.setAdditionalSearchPath(pybullet_data.getDataPath())
        bullet._bodies_idx = {}
        self.arm = CoarsePanda(bullet, block_gripper=True, base_position=np.array(BASE), control_type="ee")
        bullet.create_plane(z_offset=-0.4)
        client.changeVisualShape(bullet._bodies_idx["plane"], -1, rgbaColor=(0, 0, 0, 0))  # a third of the time, for a corner
        bullet.create_table(length=1.1, width=0.7, height=0.4, x_offset=-0.3)
        half = np.full(3, CUBE / 2)
        for colour in cubes:
            bullet.create_box(f"cube {colour}", half, 1.0, np.array([0, 0, CUBE / 2]), np.array([*COLOURS[colour], 1.0]))
        for colour in goals:
            size = np.array(PLATE) if self.plates else half
            bullet.create_box(
                f"goal {colour}", size, 0.0, np.array([0, 0, CUBE / 2]), np.array([*COLOURS[colour], 1.0]), ghost=True
            )
        self.arm.reset()
        upright = np.array([0.0, 0.0, 0.0, 1.0])
        for colour, place in goals.items():
            shown = np.array([*place[:2], PLATE[2]]) if self.plates else place
            bullet.set_base_pose(f"goal {colour}", shown, upright)
        for colour, place in cubes.items():
            bullet.set_base_pose(f"cube {colour}", place, upright)

    def step(self, action: np.ndarray) -> None:
        """The hand moves by up to 5 cm a step and axis [3] in -1..1."""
        self.arm.set_action(action)
        self.bullet.step()

    def hand(self) -> np.ndarray:
        return self.arm.get_ee_position()

    def cube(self, colour: str) -> np.ndarray:
        return self.bullet.get_base_position(f"cube {colour}")

    def image(self, size: int) -> np.ndarray:
        """[size, size, 3] uint8."""
        _, _, pixels, _, _ = self.client.getCameraImage(
            width=size,
            height=size,
            viewMatrix=self.view,
            projectionMatrix=self.lens,
            shadow=0,  # costs a third of the speed and says nothing
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
        )
        return np.asarray(pixels, np.uint8).reshape(size, size, 4)[..., :3]

    def close(self) -> None:
        self.bullet.close()
