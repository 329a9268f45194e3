"""What pytest leaves alone: modules whose extra is not installed."""

from importlib.util import find_spec

PANEL = ["controls", "figures", "page"]
collect_ignore = [] if find_spec("panel") else [f"ccm/explore/{name}.py" for name in PANEL]
