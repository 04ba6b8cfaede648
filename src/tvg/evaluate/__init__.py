"""Evaluation: predict asks the model, metrics scores what it said, floors and intervals say what a score is worth."""
