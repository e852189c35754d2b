"""Picture grids: resumable, shared by several processes, shown on sheets and a page."""
