from envs.metaworld.family import Config, MetaWorld

__all__ = ["Config", "MetaWorld"]
