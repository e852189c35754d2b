"""Pages that are one file each: templates, styles, scripts, and what renders them."""
