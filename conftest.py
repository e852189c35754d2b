"""pytest collects nothing from the root: test.py and test_flux.py there are render scripts."""

collect_ignore = ["test.py", "test_flux.py"]
