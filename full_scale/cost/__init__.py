"""What a run will need, counted on the meta device. Touches the run's
settings and cast; starts nothing."""
