"""Where ComfyUI keeps what its command line said."""

import types

args = types.SimpleNamespace(cpu=False)
