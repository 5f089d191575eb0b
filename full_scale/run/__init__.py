"""A training run: settings, cast, engine, checkpoints. Touches data and families; no command."""
