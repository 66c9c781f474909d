from envs.darkroom.family import Config, DarkRoom

__all__ = ["Config", "DarkRoom"]
