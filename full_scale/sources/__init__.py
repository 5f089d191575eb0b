"""Where pictures and captions come from: folders, tables, tars. Touches files
alone: no model, no torch process."""
