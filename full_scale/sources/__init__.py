"""Where pictures and captions come from: folders, tables, tars. Touches no other room."""
