from envs.minigrid.family import Config, MiniGrid

__all__ = ["Config", "MiniGrid"]
