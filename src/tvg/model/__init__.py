"""The model side: loading, adapters, positions, and the policy interface that trainers and evaluators know."""

from tvg.model import shim as shim
