"""Reinforcement learning for temporal video grounding: one package under one Snakemake workflow."""

__version__ = "0.1.0"
