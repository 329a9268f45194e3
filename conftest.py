"""What pytest leaves alone: modules whose extra is not installed."""

from importlib.util import find_spec

PANEL = [f"ccm/explore/{name}.py" for name in ("controls", "figures", "page")]
PANEL += [f"deepspec/explore/{name}.py" for name in ("figures", "page")]
collect_ignore = [] if find_spec("panel") else PANEL
